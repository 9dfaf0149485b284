"""The parts of a run's configuration that molecules and crystals share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from atomrl.config.objective_keys import FORWARD, OF_SUMS, OF_THE_GUARD, READ_BY
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
    """Name of a shipped backbone; a path: a folder with model.safetensors and model.json, a run directory or its
    checkpoint; or `hub:user/name`, a model on the Hugging Face hub, with `@revision` if it shall be another than the
    newest."""
    time_step: Count = 1000
    """T, transitions of the reverse walk."""
    share_initial_noise: bool = False
    """One initial latent per group."""
    skip_prefix: CountOrNone = 0
    """Transitions at the beginning of the walk that a group takes together, with `share_initial_noise`: sampled once,
    and not trained."""
    return_suffix_only: bool = True
    """Keep no latents of that prefix, which nothing reads; false: keep them."""


class DataloaderSection(Options):
    """Prompts: which sizes, in how many groups, how often."""

    sample_group_size: Count = 4
    """Prompts (groups) per iteration."""
    each_prompt_sample: Count = 128
    """Samples per prompt."""
    micro_batch_size: Count = 512
    """Samples that the sampler sees at once; at least one group, each_prompt_sample."""
    epoches: Annotated[Count, Unit("iterations")] = 100
    """Iterations."""
    nodes_dist_focus_min: Annotated[Whole | None, Unit("atoms")] = None
    """Smallest size, in atoms, whose weight is multiplied; null leaves the end open."""
    nodes_dist_focus_max: Annotated[Whole | None, Unit("atoms")] = None
    """Largest such size; null leaves the end open."""
    nodes_dist_focus_multiplier: Weight = 1.0
    """By this; 1 leaves the backbone's size histogram as it is."""
    context: dict[str, float | str] = Field(default_factory=dict)
    """What every prompt asks a conditional backbone for, {name: value}; what is not given is drawn for its size."""

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
    """Passes over a rollout."""
    train_micro_batch_size: Count | None = None
    """Samples per backward pass; may cut a group. null: a whole bucket of the rollout."""
    gradient_accumulation_steps: Count | None = None
    """An optimizer step takes so many times train_micro_batch_size samples (null: dataloader.micro_batch_size), of all
    processes together and in the order in which they were prompted; null: all of the rollout's."""
    terms_per_step: Count | None = None
    """Trained transitions, or draws of times, per optimizer step; null: all of them."""
    max_grad_norm: Positive = 1.0
    """The gradient is clipped to this norm."""
    log_prob_reduction: Literal["sum", "mean"] = "sum"
    """Over the elements of a latent; of `nft`, `awm` and `rejection` only in max_behaviour_kl."""
    max_behaviour_kl: Positive | None = None
    """A step that moves the policy further than this from the behaviour policy (KL per transition, mean over probed
    ones) is halved until it does not; null: no guard."""
    exploded_above: Positive = 30.0
    """A sample whose latents exceed this size, or are not finite, takes no part."""
    objective: Annotated[str | dict[str, Any], AfterValidator(_objective)] = "fed_grpo"
    """`fed_grpo`: each channel normalised in its group, then weighed and summed; `grpo`: summed, then normalised; `nft`
    and `awm`: through the denoising loss of the samples; `rejection`: of the best of each group alone; or your own,
    `{_target_: path/to/file.py:name, key: value}`."""
    clip_advantage_value: Positive = 5.0
    """Of `fed_grpo`: bound of the summed advantage (`adv_clip_max`)."""
    clip_range: Positive = 0.15
    """eps of the ratio's clip (`clip_ratio`)."""
    kl_penalty_weight: Weight = 0.0
    """Weight of the KL to the initial model."""
    step_weighting: Literal["published", "balanced"] = "published"
    """Whether each step's log-ratio is multiplied by std / c, so that all stages of the walk teach alike."""
    train_steps: Count | None = None
    """Transitions trained on per iteration, equally spaced from a random start; null takes all."""
    train_min_time: Fraction = 0.0
    """Transitions that start at a time t (1 is noise, 0 the sample) below this are not trained on: the last ones bring
    most of the gradient's noise and little of its signal."""
    train_max_time: Fraction = 1.0
    """Nor are those above this."""
    num_inner_batch: Count | None = None
    """Optimizer steps per pass over a rollout, each on a share of the trained transitions; null: one, or what
    terms_per_step says."""
    failed: Literal["worst", "mask"] = "worst"
    """A failed score counts as the `worst` of its group, or `mask`: the sample takes no part."""
    group_reward_norm: bool = True
    """Of `grpo`, and of `advantages: sum`: normalise in each group; false: over the batch."""
    reward_normalize_fn: Literal["std", "norm", "subtract_mean", "clip"] | None = "std"
    """Likewise: how, see `core.normalize`; null: the sum itself."""
    reward_eps: Weight = 1e-4
    """Likewise: added to the denominator."""
    kl_weight: Weight = 0.0
    """Of `grpo`: weight of the KL to the behaviour policy."""
    entropy_weight: Weight = 0.0
    """Of `grpo`: weight of the entropy."""
    advantages: Literal["channels", "ranks", "sum"] = "channels"
    """Of `nft`, `awm` and `rejection`: how scores become advantages. `channels`: each normalised in its group, then
    weighed and summed, as `fed_grpo` does; `ranks`: the same of each channel's ranks, so that one score far from all
    others does not make these alike; `sum`: summed, then normalised, as `grpo` does."""
    nft: NFTOptions = NFTOptions()
    """Of `nft`."""
    awm: AWMOptions = AWMOptions()
    """Of `awm`."""
    rejection: RejectionOptions = RejectionOptions()
    """Of `rejection`."""
    learning_rate: Rate = 5e-6
    """Peak rate of AdamW."""
    beta1: BelowOne = 0.9
    """Of AdamW."""
    beta2: BelowOne = 0.999
    """Of AdamW."""
    weight_decay: Weight = 1e-4
    """Of AdamW."""
    epsilon: Rate = 1e-8
    """Of AdamW, added to the denominator."""
    scheduler: Literal["constant", "cosine", "wsd"] = "cosine"
    """Shape of the learning rate's schedule."""
    warmup_steps: Annotated[CountOrNone, Unit("iterations")] = 10
    """Iterations of linear warm-up."""
    total_steps: Annotated[Count | None, Unit("iterations")] = None
    """Iterations of the schedule; null takes dataloader.epoches."""
    decay_fraction: Fraction = 0.2
    """Of `wsd`: last part of the schedule, over which the rate falls."""
    decay_shape: Literal["linear", "cosine"] = "linear"
    """Of `wsd`: how the rate falls. `linear`: in a straight line, over that part of all iterations; `cosine`, as
    published: by half a cosine, over that part of the iterations after the warm-up."""
    min_lr_ratio: Fraction = 0.0
    """The rate never falls below this fraction of its peak."""
    ema_decay: Fraction = 0.9
    """Of the averaged weights, per iteration."""
    rank_timeout: Annotated[Positive, Unit("s")] = 1800.0
    """Of several processes: seconds that the others wait for one before they end the run."""

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        """Transitions that are trained, and when the optimizer steps."""
        if not self.train_min_time < self.train_max_time:
            raise contradiction(
                f"{{at}}train_min_time={self.train_min_time}, {{at}}train_max_time={self.train_max_time}: "
                "must be times between 0 and 1, the first below the second"
            )
        if self.num_inner_batch is not None and self.terms_per_step is not None:
            raise contradiction(
                "{at}num_inner_batch and {at}terms_per_step both say how many transitions a step takes: set one"
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
        """{key: value} of what the chosen objective does not read although it is not at its default.

        One of the user's may read anything, or nothing: it gets its options in its own mapping.
        """
        if not isinstance(self.objective, str):
            return {}
        found = {}
        for name in [name for name in READ_BY if name in type(self).model_fields]:
            value, default = getattr(self, name), type(self).model_fields[name].default
            read = self.objective in READ_BY[name] and not (self.by_channel and name in OF_SUMS)
            read = read or (name in OF_THE_GUARD and self.max_behaviour_kl is not None)
            if value != default and not read:
                found[name] = value
        return found


class RewardSection(Options):
    """What is rewarded; each domain adds its own options."""

    type: str = "dummy"
    """Of the reward."""
    workers: Count | None = None
    """Scoring processes; null takes one per core that this process may use."""
    shaping: ShapingOptions = ShapingOptions()
    """A reward for each transition."""

    @property
    def code(self) -> list[Any]:
        """The mappings that name code."""
        return []


class Config(Options):
    """A run; each domain adds its own options (`molecules.MoleculeConfig`, `crystals.CrystalConfig`)."""

    domain: str = "molecules"
    """What the atoms are, `molecules` or `crystals`; the other keys depend on it."""
    seed: Seed = 0
    """Key of all randomness."""
    save_path: str | None = None
    """The run directory; null makes a fresh one under outputs/."""
    resume: bool = False
    """Continue the run in save_path."""
    threads: Threads | None = None
    """Of torch; null leaves torch's choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    max_time_hours: Annotated[Positive | None, Unit("h")] = None
    """Hours after which the run stops; null: never."""
    save_every: Annotated[Count, Unit("iterations")] = 1
    """Iterations between saves of checkpoint_latest.pth."""
    best_checkpoint_metric: str = "reward"
    """Which logged number says what `best` is."""
    best_checkpoint_mode: Literal["max", "min"] = "max"
    """Whether more of it is better, or less."""
    early_stop_metric: str | None = None
    """Number that must improve; null: no early stop."""
    early_stop_mode: Literal["max", "min"] = "max"
    """Whether more of it is better, or less."""
    early_stop_minutes: Annotated[Weight, Unit("min")] = 20.0
    """Stop when it has not for this long, minutes."""
    early_stop_patience: Count | None = None
    """Stop when it has not in so many iterations that have the number; then minutes do not count. null: minutes do."""
    early_stop_delta: Weight = 0.001
    """By more than this."""
    needs: Annotated[dict[str, str], Says("must map each path to a text that says where to get it")] = Field(
        default_factory=dict
    )
    """What the experiment cannot start without, {path: where to get it}; all that is missing is named before anything
    loads. A path counts as long as another key names it or a folder that it is in."""
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
        by_channel = train.objective == "fed_grpo" or (train.objective in FORWARD and train.advantages != "sum")
        if loader.each_prompt_sample == 1 and (by_channel or train.group_reward_norm):
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
                f"model.skip_prefix={prefix} with dataloader.each_prompt_sample=1: nobody shares the prefix"
            )
        shaping = self.reward.shaping
        if shaping.enabled and shaping.scheduler.skip_prefix < prefix:
            raise contradiction(
                f"reward.shaping.scheduler.skip_prefix={shaping.scheduler.skip_prefix} is below "
                f"model.skip_prefix={prefix}: there a group's samples are still the same one, and scoring them teaches "
                "nothing; raise it"
            )
