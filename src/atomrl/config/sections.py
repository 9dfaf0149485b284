"""The parts of a run's configuration that molecules and crystals share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from atomrl.core.update import UpdateConfig


@dataclass(frozen=True)
class ModelSection:
    """The backbone and how it samples.

    Attributes:
        backbone: name of a shipped backbone, or a path: a folder with model.safetensors and model.json, or a run's
            checkpoint.
        time_step: T, transitions of the reverse walk.
        share_initial_noise: one initial latent per group.
    """

    backbone: str = "edm_qm9_small"
    time_step: int = 1000
    share_initial_noise: bool = False


@dataclass(frozen=True)
class DataloaderSection:
    """Prompts: which sizes, in how many groups, how often.

    Attributes:
        sample_group_size: prompts (groups) per iteration.
        each_prompt_sample: samples per prompt.
        micro_batch_size: samples that the sampler sees at once; at least one group.
        epoches: iterations.
        nodes_dist_focus_min, nodes_dist_focus_max: sizes whose weight is multiplied; null leaves the end open.
        nodes_dist_focus_multiplier: by this; 1 leaves the backbone's size histogram as it is.
    """

    sample_group_size: int = 4
    each_prompt_sample: int = 128
    micro_batch_size: int = 512
    epoches: int = 100
    nodes_dist_focus_min: int | None = None
    nodes_dist_focus_max: int | None = None
    nodes_dist_focus_multiplier: float = 1.0


@dataclass(frozen=True)
class TrainSection(UpdateConfig):
    """Objective and optimizer, and the options of `UpdateConfig`.

    Attributes:
        objective: `fed_grpo` (each channel normalised in its group, then weighed and summed) or `grpo` (summed, then
            normalised).
        clip_advantage_value: of `fed_grpo`: bound of the summed advantage (`adv_clip_max`).
        clip_range: eps of the ratio's clip (`clip_ratio`).
        kl_penalty_weight: weight of the KL to the initial model.
        step_weighting: `published` or `balanced`.
        log_prob_reduction: log-probabilities are the `sum` or the `mean` over the elements of a latent.
        train_steps: transitions trained on per iteration, equally spaced from a random start; null takes all.
        train_min_time, train_max_time: transitions that start at a time t (1 is noise, 0 the sample) outside of this
            are not trained on: the last ones bring most of the gradient's noise and little of its signal.
        num_inner_batch: optimizer steps per pass over a rollout, each on a share of the trained transitions; null: one,
            or what gradient_accumulation_steps says.
        failed: a failed score counts as the `worst` of its group, or `mask`.
        group_reward_norm: of `grpo`: normalise in each group; false: over the batch.
        reward_normalize_fn, reward_eps: of `grpo`: how, see `rewards.normalize`; null: the sum itself.
        kl_weight: of `grpo`: weight of the KL to the behaviour policy.
        entropy_weight: of `grpo`.
        learning_rate, beta1, beta2, weight_decay: of AdamW.
        scheduler: `constant`, `cosine` or `wsd`.
        warmup_steps: iterations of linear warm-up.
        total_steps: iterations of the schedule; null takes dataloader.epoches.
        decay_fraction: of `wsd`: last part of the schedule, over which the rate falls.
        min_lr_ratio: the rate never falls below this fraction of its peak.
        ema_decay: of the averaged weights, per iteration.
    """

    objective: str = "fed_grpo"
    clip_advantage_value: float = 5.0
    clip_range: float = 0.15
    kl_penalty_weight: float = 0.0
    step_weighting: str = "published"
    log_prob_reduction: str = "sum"
    train_steps: int | None = None
    train_min_time: float = 0.0
    train_max_time: float = 1.0
    num_inner_batch: int | None = None
    failed: str = "worst"
    group_reward_norm: bool = True
    reward_normalize_fn: str | None = "std"
    reward_eps: float = 1e-4
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    learning_rate: float = 5e-6
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-4
    scheduler: str = "cosine"
    warmup_steps: int = 10
    total_steps: int | None = None
    decay_fraction: float = 0.2
    min_lr_ratio: float = 0.0
    ema_decay: float = 0.9


@dataclass(frozen=True)
class RewardSection:
    """What is rewarded; each domain adds its own options.

    Attributes:
        type: of the reward; `dummy` is for smoke tests, its numbers mean nothing.
        workers: scoring processes; null takes one per core that this process may use.
    """

    type: str = "dummy"
    workers: int | None = None


@dataclass(frozen=True)
class WandbSection:
    """Weights & Biases.

    Attributes:
        enabled: log there (needs `pip install 'atomrl[wandb]'`).
        project: name of the project.
    """

    enabled: bool = False
    project: str = "atomrl"


@dataclass(frozen=True)
class LogSection:
    """Where metrics go beside metrics.jsonl.

    Attributes:
        tensorboard: write TensorBoard events.
        csv: write metrics.csv.
    """

    tensorboard: bool = True
    csv: bool = False


@dataclass(frozen=True)
class EvaluationSection:
    """The before/after table that a run ends with.

    Attributes:
        samples: fresh samples per side; 0: no evaluation.
        time_step: T of the evaluation's walk; null takes model.time_step.
        seed: of the evaluation's prompts and noise, the same for both sides.
    """

    samples: int = 0
    time_step: int | None = None
    seed: int = 1_000_003


@dataclass(frozen=True)
class Config:
    """A run; each domain adds its own options (`molecules.MoleculeConfig`, `crystals.CrystalConfig`).

    Attributes:
        domain: `molecules` or `crystals`.
        seed: key of all randomness.
        save_path: the run directory; null makes a fresh one under outputs/.
        resume: continue the run in save_path.
        threads: of torch; null leaves torch's choice.
        device: `auto`, `cpu` or `cuda`.
        max_time_hours: stop after this time; null: never.
        save_every: iterations between saves of checkpoint_latest.pth.
        best_checkpoint_metric, best_checkpoint_mode: which logged number says what `best` is, and `max` or `min`.
        early_stop_metric: number that must improve; null: no early stop.
        early_stop_minutes: stop when it has not for this long.
        early_stop_delta: by more than this.
        needs: what the experiment cannot start without, {path: where to get it}; all that is missing is named before
            anything loads. A path counts as long as another key names it or a folder that it is in.
    """

    domain: str = "molecules"
    seed: int = 0
    save_path: str | None = None
    resume: bool = False
    threads: int | None = None
    device: str = "auto"
    max_time_hours: float | None = None
    save_every: int = 1
    best_checkpoint_metric: str = "molecule_stability"
    best_checkpoint_mode: str = "max"
    early_stop_metric: str | None = None
    early_stop_minutes: float = 20.0
    early_stop_delta: float = 0.001
    needs: Any = field(default_factory=dict)  # free-form: paths have dots, which keys have not
    model: ModelSection = field(default_factory=ModelSection)
    dataloader: DataloaderSection = field(default_factory=DataloaderSection)
    reward: RewardSection = field(default_factory=RewardSection)
    train: TrainSection = field(default_factory=TrainSection)
    wandb: WandbSection = field(default_factory=WandbSection)
    log: LogSection = field(default_factory=LogSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
