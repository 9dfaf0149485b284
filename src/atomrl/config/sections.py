"""The parts of a run's configuration that molecules and crystals share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from atomrl.config.objective_keys import FORWARD, READ_BY, unread_keys
from atomrl.config.outputs import VALIDATED, EvaluationSection, LogSection, ValidationSection, WandbSection
from atomrl.config.shaping import ShapingOptions
from atomrl.core.objectives.forward_options import AWMOptions, NFTOptions, RejectionOptions
from atomrl.util.option_words import Says, Unit
from atomrl.util.options import (
    BelowOne,
    Count,
    CountOrNone,
    Fraction,
    Options,
    Positive,
    Rate,
    Seed,
    Threads,
    Weight,
    Whole,
    contradiction,
)
from atomrl.util.registry import registered_names

TARGET = "_target_"
"""Key of a mapping that names code: a dotted path, or `path/to/file.py:name`."""


def _objective(value: str | dict[str, Any]) -> str | dict[str, Any]:
    """Raise UserError for a name that no objective has, and a mapping that names none."""
    names = registered_names("atomrl.core.objectives")
    if isinstance(value, dict):
        return named_code("objective", value)
    if value not in names:
        raise contradiction(f"{{at}}objective={value}: must be one of {', '.join(names)}")
    return value


def named_code(key: str, value: dict[str, Any]) -> dict[str, Any]:
    """Raise UserError for a mapping that names no code."""
    if not isinstance(value.get(TARGET), str):
        raise contradiction(f"{{at}}{key}: a mapping needs {TARGET}, a dotted path or path/to/file.py:name")
    return value


class ModelSection(Options):
    """The backbone and how it samples."""

    backbone: str = "edm_qm9_small"
    """Model to start from: the name of a shipped backbone; a folder with model.safetensors and model.json, or published
    EDM files; a run directory or its checkpoint; or `hub:user/name`, a model on the Hugging Face hub, with `@revision`
    for another than the newest."""
    time_step: Count = 1000
    """T, the transitions of the walk from noise to sample; the cost of sampling grows with it."""
    share_initial_noise: bool = False
    """Whether the samples of a group start from the same noise, so that only their walks differ."""
    skip_prefix: CountOrNone = 0
    """First transitions of the walk, sampled once per group, not trained on (need `share_initial_noise`); 0: none."""
    return_suffix_only: bool = True
    """Whether the latents of the `skip_prefix` transitions, which no update reads, are left out of the record."""


class DataloaderSection(Options):
    """Prompts: which sizes, in how many groups, how often."""

    sample_group_size: Count = 4
    """Groups (prompts) per iteration; the samples of a group have the same number of atoms."""
    each_prompt_sample: Count = 128
    """Samples in a group."""
    micro_batch_size: Count = 512
    """Samples that the sampler draws at once; at least one group, `each_prompt_sample`."""
    epoches: Annotated[Count, Unit("iterations")] = 100
    """Iterations of the training."""
    nodes_dist_focus_min: Annotated[Whole | None, Unit("atoms")] = None
    """Smallest size in atoms that `nodes_dist_focus_multiplier` makes more, or less, frequent; null: no lower end."""
    nodes_dist_focus_max: Annotated[Whole | None, Unit("atoms")] = None
    """Largest size in atoms that `nodes_dist_focus_multiplier` makes more, or less, frequent; null: no upper end."""
    nodes_dist_focus_multiplier: Weight = 1.0
    """Factor on the weight of the sizes from `nodes_dist_focus_min` to `nodes_dist_focus_max` in the backbone's
    histogram of sizes; 1 leaves the histogram as it is."""
    context: dict[str, float | str] = Field(default_factory=dict)
    """Values that every prompt asks a conditional model for, {name: value}; others are drawn for the prompt's size."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        """Ends in their order, groups whole."""
        low, high = self.nodes_dist_focus_min, self.nodes_dist_focus_max
        if low is not None and high is not None and low > high:
            raise contradiction(f"{{at}}nodes_dist_focus_min={low} exceeds {{at}}nodes_dist_focus_max={high}")
        if self.micro_batch_size < self.each_prompt_sample:
            raise contradiction(
                f"{{at}}micro_batch_size={self.micro_batch_size} is smaller than a group "
                f"({{at}}each_prompt_sample={self.each_prompt_sample}), and a group is never split: raise it"
            )
        return self


class TrainSection(Options):
    """Objective, optimizer and update."""

    epoch_per_rollout: Count = 1
    """Passes over the samples of an iteration."""
    train_micro_batch_size: Count | None = None
    """Samples per backward pass, which may split a group; null: a whole batch of the rollout."""
    gradient_accumulation_steps: Count | None = None
    """Micro-batches per optimizer step: a step takes this many times `train_micro_batch_size` samples (where that is
    null, dataloader.micro_batch_size) of all processes together, in the order of their groups; null: all samples."""
    terms_per_step: Count | None = None
    """Trained transitions per optimizer step; with `nft`, `awm` and `rejection` draws of times; null: all."""
    max_grad_norm: Positive = 1.0
    """The gradient is clipped to this norm."""
    log_prob_reduction: Literal["sum", "mean"] = "sum"
    """How log-probabilities are reduced over the elements of a sample's latent; with `nft`, `awm` and `rejection`, only
    `max_behaviour_kl` reads it."""
    max_behaviour_kl: Positive | None = None
    """An optimizer step that moves the policy further than this from the policy that sampled is halved until it does
    not, at most seven times, and then taken back; null: no guard. The distance is the mean KL of two transitions, in
    nats, weighted so that all stages of the walk count alike."""
    exploded_above: Positive = 30.0
    """A sample with a latent beyond this size, or one that is not finite, is left out of the update."""
    objective: Annotated[str | dict[str, Any], AfterValidator(_objective)] = "fed_grpo"
    """How the policy learns. `fed_grpo`: by policy gradient, each channel normalised in its group, then weighted and
    summed; `grpo`: the same, but weighted and summed first, then normalised; `nft`, `awm`: by the denoising loss of the
    finished samples; `rejection`: by that of each group's best samples alone; or your own, `{_target_:
    path/to/file.py:name, key: value}`."""
    clip_advantage_value: Positive = 5.0
    """For `fed_grpo`: bound of the summed advantage, in standard deviations of the group (published `adv_clip_max`)."""
    clip_range: Positive = 0.15
    """For `fed_grpo` and `grpo`: the ratio of new to old probability is clipped to 1 ± this (`clip_ratio`)."""
    kl_penalty_weight: Weight = 0.0
    """For `fed_grpo` and `grpo`: weight of the KL to the initial model, which keeps the policy near it; 0: none."""
    step_weighting: Literal["published", "balanced"] = "published"
    """For `fed_grpo` and `grpo`: `balanced` multiplies each step's log-ratio by std / c, with c the factor of the
    predicted noise in the step's mean, so that all stages of the walk have the same influence; with `published` the
    last, nearly noiseless ones outweigh the others."""
    train_steps: Count | None = None
    """For `fed_grpo` and `grpo`: transitions of a walk to train on, evenly spread from a random offset; null: all."""
    train_min_time: Fraction = 0.0
    """For `fed_grpo` and `grpo`: transitions that start at a time below this (1 is noise, 0 the sample) are not trained
    on. The last ones bring most of the gradient's noise and little of its signal."""
    train_max_time: Fraction = 1.0
    """For `fed_grpo` and `grpo`: transitions that start at a time above this are not trained on (1 is noise)."""
    num_inner_batch: Count | None = None
    """Optimizer steps in a pass over the samples, each on a share of the trained transitions or, with `nft`, `awm` and
    `rejection`, of the draws of times; null: one, or what `terms_per_step` says."""
    failed: Literal["worst", "mask"] = "worst"
    """What a failed score counts as: `worst`, the worst of its group (with `group_reward_norm=false` of the batch);
    `mask`, nothing: it is left out."""
    group_reward_norm: bool = True
    """For `grpo`, and for `advantages=sum`: whether to normalise in each group; false: over the whole batch."""
    reward_normalize_fn: Literal["std", "norm", "subtract_mean", "clip"] | None = "std"
    """For `grpo`, and for `advantages=sum`: how to normalise. `std`: (x - mean) / standard deviation; `norm`: to the
    range from 0 to 1; `subtract_mean`: x - mean; `clip`: clamped to the range from -1 to 1; null: not at all."""
    reward_eps: Weight = 1e-4
    """For `grpo`, and for `advantages=sum`: added to the divisor; where the spread is below this, advantages are 0."""
    kl_weight: Weight = 0.0
    """For `grpo`: weight of the KL to the policy that sampled; 0: none."""
    entropy_weight: Weight = 0.0
    """For `grpo`: weight of the entropy, which is rewarded; 0: none."""
    advantages: Literal["channels", "ranks", "sum"] = "channels"
    """For `nft`, `awm` and `rejection`: how scores become advantages. `channels`: each channel normalised in its group,
    then weighted and summed, as `fed_grpo` does; `ranks`: the same of each channel's ranks, so that one score far from
    all others does not make these alike; `sum`: weighted and summed, then normalised, as `grpo` does."""
    nft: NFTOptions = NFTOptions()
    """Options of `nft`."""
    awm: AWMOptions = AWMOptions()
    """Options of `awm`."""
    rejection: RejectionOptions = RejectionOptions()
    """Options of `rejection`."""
    learning_rate: Rate = 5e-6
    """Peak learning rate of AdamW."""
    beta1: BelowOne = 0.9
    """beta1 of AdamW."""
    beta2: BelowOne = 0.999
    """beta2 of AdamW."""
    weight_decay: Weight = 1e-4
    """Weight decay of AdamW."""
    epsilon: Rate = 1e-8
    """Epsilon of AdamW, added to the denominator."""
    scheduler: Literal["constant", "cosine", "wsd"] = "cosine"
    """Learning rate after the warm-up: `constant`, `cosine`, or `wsd`, constant and then a decay."""
    warmup_steps: Annotated[CountOrNone, Unit("iterations")] = 10
    """Iterations of linear warm-up: in iteration k, from 0, the rate is (k + 1) / warmup_steps of its peak; 0: none."""
    total_steps: Annotated[Count | None, Unit("iterations")] = None
    """Iterations of the learning rate's schedule; null: dataloader.epoches."""
    decay_fraction: Fraction = 0.2
    """For `wsd`: the last part of the schedule, as a fraction of it, over which the learning rate falls."""
    decay_shape: Literal["linear", "cosine"] = "linear"
    """For `wsd`: how the learning rate falls. `linear`: in a straight line, over `decay_fraction` of all iterations;
    `cosine`, as published: by half a cosine, over `decay_fraction` of the iterations after the warm-up."""
    min_lr_ratio: Fraction = 0.0
    """Share of the peak below which the learning rate does not fall after the warm-up."""
    ema_decay: Fraction = 0.9
    """Decay per iteration of the averaged weights, which `atomrl sample` and `evaluate` take."""
    rank_timeout: Annotated[Positive, Unit("s")] = 1800.0
    """Seconds that several processes wait for one of them before they end the run."""

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        """Transitions that are trained, when the optimizer steps, and samples that are kept."""
        if not self.train_min_time < self.train_max_time:
            raise contradiction(
                f"{{at}}train_min_time={self.train_min_time}, {{at}}train_max_time={self.train_max_time}: "
                "must be times between 0 and 1, the first below the second"
            )
        if self.num_inner_batch is not None and self.terms_per_step is not None:
            raise contradiction(
                "{at}num_inner_batch and {at}terms_per_step both say how many transitions a step takes: set one"
            )
        if self.objective == "rejection" and self.advantages == "sum" and self.reward_normalize_fn in (None, "clip"):
            raise contradiction(
                "{at}objective=rejection keeps samples whose advantage is above 0, which with {at}reward_normalize_fn="
                "null or clip does not mean above average: set std or subtract_mean"
            )
        return self

    @property
    def force_alignment(self) -> dict[str, float] | None:
        """Options of the alignment of steps with forces; None: none are aligned."""
        return None

    @property
    def by_channel(self) -> bool:
        """Whether the chosen objective normalises each channel by itself, before it weighs and sums them."""
        if self.objective in READ_BY["advantages"]:
            return self.advantages != "sum"
        return self.objective == "fed_grpo"

    @property
    def unread(self) -> dict[str, Any]:
        """See `unread_keys`; nothing for an objective of the user's, which gets its options in its own mapping."""
        if not isinstance(self.objective, str):
            return {}
        return unread_keys(self, self.objective, self.by_channel, self.max_behaviour_kl is not None)


class RewardSection(Options):
    """What is rewarded; each domain adds its own options."""

    type: str = "dummy"
    """Name of the reward."""
    workers: Count | None = None
    """Processes that score; null: one per core that this process may use."""
    shaping: ShapingOptions = ShapingOptions()
    """A reward for each transition."""

    @property
    def has_total(self) -> bool:
        """Whether it adds up to a number by which samples can be chosen; the dummy does not."""
        return self.type != "dummy"

    @property
    def code(self) -> list[Any]:
        """The mappings that name code."""
        return []


class Config(Options):
    """A run; each domain adds its own options (`molecules.MoleculeConfig`, `crystals.CrystalConfig`)."""

    domain: str = "molecules"
    """What the model draws, `molecules` or `crystals`; the other keys depend on it."""
    seed: Seed = 0
    """Seed of all that the training draws."""
    save_path: str | None = None
    """The run directory; null: a fresh one under outputs/."""
    resume: bool = False
    """Whether to continue the run in `save_path`."""
    threads: Threads | None = None
    """Number of torch's threads; null: torch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where torch computes: `auto` takes a GPU where there is one."""
    max_time_hours: Annotated[Positive | None, Unit("h")] = None
    """The run ends after the iteration in which this time is exceeded; null: no limit."""
    save_every: Annotated[Count, Unit("iterations")] = 1
    """Iterations between saves of checkpoint_latest.pth; a run that is stopped, or fails, saves it too."""
    best_checkpoint_metric: str = "reward"
    """Number of metrics.jsonl by which the best iteration, which checkpoint_best.pth holds, is chosen."""
    best_checkpoint_mode: Literal["max", "min"] = "max"
    """Whether the largest value of `best_checkpoint_metric` is the best (`max`), or the smallest (`min`)."""
    early_stop_metric: str | None = None
    """Number of metrics.jsonl; the run ends when it no longer improves; null: no early stop."""
    early_stop_mode: Literal["max", "min"] = "max"
    """Whether more of `early_stop_metric` is better (`max`), or less (`min`)."""
    early_stop_minutes: Annotated[Weight, Unit("min")] = 20.0
    """Minutes without an improvement of `early_stop_metric` after which the run ends, unless `early_stop_patience` is
    set."""
    early_stop_patience: Count | None = None
    """Iterations (of a `val/...` number: validations) without an improvement of `early_stop_metric` after which the run
    ends; one in which no sample has the number is one of them. null: `early_stop_minutes` decides."""
    early_stop_delta: Weight = 0.001
    """An improvement of `early_stop_metric` is a change by more than this."""
    needs: Annotated[dict[str, str], Says("must map each path to a text that says where to get it")] = Field(
        default_factory=dict
    )
    """Paths that the experiment cannot start without, {path: where to get it}; all that are missing are named before
    anything loads. A path is checked only if another key names it or a folder that contains it."""
    model: ModelSection = ModelSection()
    """The backbone and how it samples."""
    dataloader: DataloaderSection = DataloaderSection()
    """Prompts."""
    reward: RewardSection = RewardSection()
    """What is rewarded."""
    train: TrainSection = TrainSection()
    """Objective, optimizer and update."""
    wandb: WandbSection = WandbSection()
    """Weights & Biases."""
    log: LogSection = LogSection()
    """Where metrics go."""
    validation: ValidationSection = ValidationSection()
    """Rollouts that nothing is trained on."""
    evaluation: EvaluationSection = EvaluationSection()
    """The table at the end."""

    @property
    def code(self) -> list[Any]:
        """The mappings that name code, some of it perhaps the user's: components, force field, objective."""
        return [*self.reward.code, *([self.train.objective] if isinstance(self.train.objective, dict) else [])]

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Keys of different sections that say something about each other."""
        loader, train = self.dataloader, self.train
        normalised = train.by_channel or train.group_reward_norm
        if loader.each_prompt_sample == 1 and isinstance(train.objective, str) and normalised:
            way = "train.advantages=sum" if train.objective in FORWARD else "train.objective=grpo"
            raise contradiction(
                "dataloader.each_prompt_sample=1: a group of one has no spread to normalise by, nothing would be "
                f"learned; raise it, or set {way} and train.group_reward_norm=false"
            )
        self._check_prefix()
        if train.train_steps is not None and train.train_steps > self.model.time_step - self.model.skip_prefix:
            behind = f" behind model.skip_prefix={self.model.skip_prefix}" if self.model.skip_prefix else ""
            raise contradiction(
                f"train.train_steps={train.train_steps} exceeds model.time_step={self.model.time_step}{behind}"
            )
        if self.reward.shaping.enabled and isinstance(train.objective, str) and train.objective != "fed_grpo":
            raise contradiction(
                f"reward.shaping.enabled=true needs train.objective=fed_grpo: {train.objective} reads one reward of "
                "each sample"
            )
        if self.resume and self.save_path is None:
            raise contradiction("resume=true needs save_path: the run directory to continue")
        self._check_awaited()
        return self

    def _check_awaited(self) -> None:
        """Raise UserError for a number that is waited for and never comes."""
        if self.early_stop_patience is not None and self.early_stop_metric is None:
            raise contradiction(
                f"early_stop_patience={self.early_stop_patience} waits for a number: name it, early_stop_metric=reward"
            )
        every, iterations = self.validation.every, self.dataloader.epoches
        for key in ("best_checkpoint_metric", "early_stop_metric"):
            name = getattr(self, key)
            if name is None or not name.startswith(VALIDATED) or 0 < every <= iterations:
                continue
            lack = f"comes after the last of dataloader.epoches={iterations}" if every else "means none"
            raise contradiction(
                f"{key}={name} is a number of validations, and validation.every={every} {lack}: set it between 1 and "
                f"{iterations}"
            )

    def _check_prefix(self) -> None:
        """Raise UserError for a shared prefix that is none."""
        prefix, steps = self.model.skip_prefix, self.model.time_step
        if not prefix:
            return
        if prefix >= steps:
            raise contradiction(
                f"model.skip_prefix={prefix} leaves nothing to train of model.time_step={steps}: lower it"
            )
        if not self.model.share_initial_noise:
            raise contradiction(
                f"model.skip_prefix={prefix}: a group that walks together starts together; set "
                "model.share_initial_noise=true"
            )
        validated = self.validation.time_step
        if self.validation.every and validated is not None and prefix >= validated:
            raise contradiction(
                f"validation.time_step={validated} leaves nothing behind model.skip_prefix={prefix}, which a "
                "validation walks too: raise it, or lower the prefix"
            )
        if self.dataloader.each_prompt_sample == 1:
            raise contradiction(
                f"model.skip_prefix={prefix} with dataloader.each_prompt_sample=1: nothing shares the prefix"
            )
        shaping = self.reward.shaping
        if shaping.enabled and shaping.scheduler.skip_prefix < prefix:
            raise contradiction(
                f"reward.shaping.scheduler.skip_prefix={shaping.scheduler.skip_prefix} is below "
                f"model.skip_prefix={prefix}: up to there the samples of a group are identical, and scoring them "
                "teaches nothing; raise it"
            )
