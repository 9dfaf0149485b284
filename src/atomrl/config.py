"""The configuration of a run: typed, composed by Hydra from one self-contained YAML, checked before anything loads."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomrl.errors import UserError
from atomrl.rewards.force_energy import ForceEnergyConfig
from atomrl.update import UpdateConfig

REWARD_TYPES = ("xtb", "dummy")


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
class RewardSection(ForceEnergyConfig):
    """What is rewarded: the options of `ForceEnergyConfig`, and where scores come from.

    Attributes:
        type: `xtb` (GFN2) or `dummy` (smoke tests; its numbers mean nothing).
        workers: scoring processes; null takes one per core.
        timeout: seconds that one molecule may take.
        max_iterations: bound on SCF iterations.
    """

    type: str = "xtb"
    workers: int | None = None
    timeout: float = 10.0
    max_iterations: int = 100
    energy_atom_refs: Any = "xtb"


@dataclass(frozen=True)
class TrainSection(UpdateConfig):
    """Objective and optimizer, and the options of `UpdateConfig`.

    Attributes:
        force_adv_weight, energy_adv_weight, stability_adv_weight: weights of the channels' advantages.
        clip_advantage_value: bound of the summed advantage (`adv_clip_max`).
        clip_range: eps of the ratio's clip.
        kl_penalty_weight: weight of the KL to the initial model.
        step_weighting: `published` or `balanced`.
        train_steps: transitions trained on per iteration, drawn at random; null takes all.
        train_min_time, train_max_time: transitions that start at a time t (1 is noise, 0 the sample) outside of this
            are not trained on: the last ones bring most of the gradient's noise and little of its signal.
        failed: a failed score counts as the `worst` of its group, or `mask`.
        learning_rate, beta1, beta2, weight_decay: of AdamW.
        scheduler: `constant`, `cosine` or `wsd`.
        warmup_steps: iterations of linear warm-up.
        total_steps: iterations of the schedule; null takes dataloader.epoches.
        decay_fraction: of `wsd`: last part of the schedule, over which the rate falls.
        min_lr_ratio: the rate never falls below this fraction of its peak.
        ema_decay: of the averaged weights, per iteration.
    """

    force_adv_weight: float = 1.0
    energy_adv_weight: float = 0.1
    stability_adv_weight: float = 0.0
    clip_advantage_value: float = 5.0
    clip_range: float = 0.15
    kl_penalty_weight: float = 0.0
    step_weighting: str = "published"
    train_steps: int | None = None
    train_min_time: float = 0.0
    train_max_time: float = 1.0
    failed: str = "worst"
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

    @property
    def channel_weights(self) -> dict[str, float]:
        """Weight of each reward channel's advantages."""
        return {
            "force": self.force_adv_weight,
            "energy": self.energy_adv_weight,
            "stability": self.stability_adv_weight,
        }


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
        rdkit: check every iteration's samples with RDKit (validity, uniqueness).
    """

    tensorboard: bool = True
    csv: bool = False
    rdkit: bool = True


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
    """A run.

    Attributes:
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
        early_stop_delta: by at least this.
    """

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
    model: ModelSection = field(default_factory=ModelSection)
    dataloader: DataloaderSection = field(default_factory=DataloaderSection)
    reward: RewardSection = field(default_factory=RewardSection)
    train: TrainSection = field(default_factory=TrainSection)
    wandb: WandbSection = field(default_factory=WandbSection)
    log: LogSection = field(default_factory=LogSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)


def load_config(name: str, overrides: Sequence[str] = (), folder: Path | None = None) -> Config:
    """Compose, validate and type a configuration.

    Args:
        name: of a YAML file, without its ending, in the package's `conf/` or in `folder`.
        overrides: `key=value`, as Hydra writes them.
        folder: where the user's own YAML files are.

    Raises:
        UserError: unknown or contradictory keys, values of the wrong type, no such file.
    """
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{override!r} is not of the form key=value")
        _known_key(override.partition("=")[0].lstrip("+~"))
    try:
        # `++`: a key that the YAML leaves at its default can be overridden too; unknown keys were refused above.
        composed = _compose(name, [text if text[0] in "+~" else f"++{text}" for text in overrides], folder)
    except HydraException as error:
        raise UserError(f"configuration {name}: {str(error).strip().splitlines()[0]}") from error
    return from_yaml(composed)


def from_yaml(composed: DictConfig | ListConfig) -> Config:
    """Typed and validated configuration out of a loaded YAML, e.g. the config.yaml of a run.

    Raises:
        UserError: as `load_config`.
    """
    for key in _leaves(OmegaConf.to_container(composed, resolve=False)):
        _known_key(key)
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(_schema(), composed))
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {str(error).strip().splitlines()[0]}") from error
    assert isinstance(typed, Config)
    check(typed)
    return typed


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def check(config: Config) -> None:
    """Refuse values out of range and keys that contradict each other."""
    loader, train = config.dataloader, config.train
    for key, value, low in (
        ("model.time_step", config.model.time_step, 1),
        ("dataloader.sample_group_size", loader.sample_group_size, 1),
        ("dataloader.each_prompt_sample", loader.each_prompt_sample, 2),
        ("dataloader.epoches", loader.epoches, 1),
        ("train.train_steps", train.train_steps, 1),
        ("train.epoch_per_rollout", train.epoch_per_rollout, 1),
        ("train.train_micro_batch_size", train.train_micro_batch_size, 1),
        ("train.gradient_accumulation_steps", train.gradient_accumulation_steps, 1),
        ("save_every", config.save_every, 1),
        ("reward.workers", config.reward.workers, 1),
        ("evaluation.samples", config.evaluation.samples, 0),
    ):
        if value is not None and value < low:
            raise UserError(f"{key}={value}: must be at least {low}")
    for key, choice, allowed in (
        ("reward.type", config.reward.type, REWARD_TYPES),
        ("train.step_weighting", train.step_weighting, ("published", "balanced")),
        ("train.failed", train.failed, ("worst", "mask")),
        ("train.log_prob_reduction", train.log_prob_reduction, ("sum", "mean")),
        ("train.scheduler", train.scheduler, ("constant", "cosine", "wsd")),
        ("best_checkpoint_mode", config.best_checkpoint_mode, ("max", "min")),
        ("device", config.device, ("auto", "cpu", "cuda")),
    ):
        if choice not in allowed:
            raise UserError(f"{key}={choice}: must be one of {', '.join(allowed)}")
    for key, number in (("train.learning_rate", train.learning_rate), ("train.clip_range", train.clip_range)):
        if not number > 0:
            raise UserError(f"{key}={number}: must be positive")
    if loader.micro_batch_size < loader.each_prompt_sample:
        raise UserError(
            f"dataloader.micro_batch_size={loader.micro_batch_size} is smaller than a group "
            f"(dataloader.each_prompt_sample={loader.each_prompt_sample}), and a group is never split: raise it"
        )
    if train.train_steps is not None and train.train_steps > config.model.time_step:
        raise UserError(f"train.train_steps={train.train_steps} exceeds model.time_step={config.model.time_step}")
    if not 0 <= train.train_min_time < train.train_max_time <= 1:
        raise UserError(
            f"train.train_min_time={train.train_min_time}, train.train_max_time={train.train_max_time}: "
            "must be times between 0 and 1, the first below the second"
        )
    if config.resume and config.save_path is None:
        raise UserError("resume=true needs save_path: the run directory to continue")


def _schema() -> DictConfig:
    """The typed configuration with its defaults, writable although its dataclasses are frozen."""
    schema: DictConfig = OmegaConf.structured(Config)
    for section in (schema, *(schema[entry.name] for entry in fields(Config))):
        if OmegaConf.is_config(section):
            OmegaConf.set_readonly(section, False)
    return schema


def _compose(name: str, overrides: list[str], folder: Path | None) -> DictConfig:
    """Compose by Hydra, from the package or from a folder of the user's."""
    if folder is None:
        with initialize_config_module("atomrl.conf", version_base="1.3"):
            return compose(name, overrides)
    if not folder.is_dir():
        raise UserError(f"--config-dir {folder}: no such folder")
    with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
        return compose(name, overrides)


def _known_key(key: str) -> None:
    """Refuse a key that no part of the configuration reads, naming the nearest that exists."""
    section: Any = Config
    for part in key.split("."):
        names = {entry.name: entry for entry in fields(section)} if is_dataclass(section) else {}
        if part not in names:
            if section is Any:
                return  # below a free-form value
            near = difflib.get_close_matches(part, names, n=1)
            hint = (
                f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}" if names else "it has no parts"
            )
            raise UserError(f"unknown configuration key {key}: {hint}")
        factory = names[part].default_factory
        section = factory if is_dataclass(factory) else Any if names[part].type == "Any" else None


def _leaves(tree: Any, prefix: str = "") -> list[str]:
    """Dotted names of all leaves of a nested mapping."""
    if not isinstance(tree, dict) or not tree:
        return [prefix] if prefix else []
    return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))]
