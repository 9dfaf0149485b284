"""What `python -m benchmarks learning` compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from atomrl.config import load_config
from atomrl.config.objective_keys import UNREAD_INSIDE
from atomrl.util.errors import UserError

DIFFUSION_NFT = "DiffusionNFT"

WINDOW = 5
"""Iterations of the running mean by which arms are compared."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: of its rows and its curve.
        config: YAML of `atomrl.conf`.
        overrides: of that YAML.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Its runs' folders begin with this."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)


@dataclass(frozen=True)
class Comparison:
    """Arms with the same prompts, and with the same reward but where `about` says another.

    Attributes:
        about: what the report begins with.
        arms: trainings.
        measure: key of the log, and of the reward's diagnostics, by which arms are compared,
        title: in words, with
        unit: and
        scale: factor on the logged number;
        better: `higher` or `lower`.
        shares: further keys of the log, which show what a gain costs, and their titles;
        legend: of what they are shares.
        iterations: of each.
        groups, each: of an iteration.
        best_of: numbers of draws of which one is kept; none: no such control.
        steered: numbers of particles, likewise.
        time_step: T of all walks.
        common: overrides of all arms.
    """

    about: str
    arms: tuple[Arm, ...]
    measure: str
    title: str
    unit: str
    scale: float
    better: str
    shares: Mapping[str, str]
    legend: str
    iterations: int
    groups: int
    each: int
    time_step: int = 50
    best_of: tuple[int, ...] = ()
    steered: tuple[int, ...] = ()
    common: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Scored in an iteration."""
        return self.groups * self.each

    def overrides(self, arm: Arm) -> tuple[str, ...]:
        """Of an arm's YAML."""
        counts = {"sample_group_size": self.groups, "each_prompt_sample": self.each, "epoches": self.iterations}
        walk = f"model.time_step={self.time_step}"
        return walk, *(f"dataloader.{key}={count}" for key, count in counts.items()), *self.common, *arm.overrides

    def shrunk(self) -> Comparison:
        """The same with so few samples, steps and iterations that it only shows that it runs."""
        common = (*self.common, "dataloader.micro_batch_size=4")
        few = replace(self, iterations=2, groups=2, each=2, time_step=20, common=common)
        return replace(few, best_of=(1, 2) if self.best_of else (), steered=(2,) if self.steered else ())


def _by(objective: str, config: str, *further: str) -> tuple[str, ...]:
    """Overrides of a YAML by DiffusionNFT for another forward-process objective, as similar as can be.

    Args:
        objective: section of `train`.
        config: the YAML.
        further: key=value of that section.
    """
    options = load_config(config).train.nft
    names = ("times", "max_time", "clip_advantage", "residual_limit", "reference_weight")
    unread = UNREAD_INSIDE.get(objective, ())
    same = (f"{name}={getattr(options, name)}" for name in names if name not in unread)
    return (f"train.objective={objective}", *(f"train.{objective}.{word}" for word in (*same, *further)))


def _objectives(nft: str, policy_gradient: Arm) -> tuple[Arm, ...]:
    """The forward-process objectives of a YAML by DiffusionNFT, and the policy gradient."""
    return (
        Arm(DIFFUSION_NFT, nft),
        Arm("AWM", nft, _by("awm", nft, "clip_range=0.05")),
        Arm("rejection fine-tuning", nft, _by("rejection", nft)),
        policy_gradient,
    )


def _novelty(options: str) -> str:
    """Override: the demo's components, with other options of the reward for novelty."""
    return f"reward.components=[{{_target_:xtb}},{{_target_:atomrl.rewards.novelty.NoveltyReward,{options}}}]"


UNPAID = _novelty("weight:0")
"""Novelty is logged, and pays nothing."""

POLICY_GRADIENT = "policy gradient"

NFT = Arm(DIFFUSION_NFT, "demo")
MOLECULES = Comparison(
    about="The demo's prompts; share of stable molecules of an iteration's 128. All are paid by the demo's reward, but "
    "the policy gradient by that of `demo_fed_grpo`: half the weight of force and energy, and nothing for novelty.",
    arms=(
        *_objectives("demo", Arm(POLICY_GRADIENT, "demo_fed_grpo", (UNPAID,))),
        Arm("AWM with the published clip", "demo", _by("awm", "demo", "clip_range=1")),
        Arm("rejection of all but the best", "demo", _by("rejection", "demo", "kept_fraction=0.0625")),  # 1 of 16
    ),
    measure="stability",
    title="stable molecules",
    unit=", %",
    scale=100,
    better="higher",
    shares={"validity_x_uniqueness": "validity x uniqueness", "novel": "valid and novel"},
    legend="Validity x uniqueness is a share of all samples. Valid and novel (no training molecule) is a share of "
    "those whose atoms neither overlap nor fly apart.",
    iterations=40,
    groups=8,
    each=16,
    best_of=(1, 2, 4, 8, 16),
    steered=(4,),
    common=("train.total_steps=60",),
)
"""5,120 scorings each: the first two thirds of the demo."""

ONE_GROUP = ("dataloader.sample_group_size=1", "dataloader.each_prompt_sample=128")

ABLATION = replace(
    MOLECULES,
    about="The demo with one option changed, each alone; share of stable molecules of an iteration's 128.",
    arms=(
        NFT,
        Arm("all draws teach", "demo", ("train.nft.residual_limit=null",)),
        Arm("no distance to the initial model", "demo", ("train.nft.reference_weight=0",)),
        Arm("gradient clipped at 1", "demo", ("train.max_grad_norm=1",)),
        Arm("twice the learning rate", "demo", ("train.learning_rate=2e-4",)),
        Arm("8 draws and steps", "demo", ("train.nft.times=8", "train.num_inner_batch=8")),
        Arm("4 draws a step", "demo", ("train.num_inner_batch=4",)),
        Arm("two passes of 8", "demo", ("train.nft.times=8", "train.num_inner_batch=8", "train.epoch_per_rollout=2")),
        Arm("self-normalised", "demo", ("train.nft.self_normalized=true", "train.nft.time_weighting=clean")),
        Arm("old policy averaged", "demo", ("train.nft.old_decay_rate=0.05", "train.nft.old_decay_max=0.5")),
        Arm("scores instead of ranks", "demo", ("train.advantages=channels",)),
        Arm("normalised over the batch", "demo", ("train.advantages=sum", "train.group_reward_norm=false")),
        Arm("sum normalised in the group", "demo", ("train.advantages=sum",)),
        Arm("published b of 0.1", "demo", ("train.nft.b=0.1",)),
        Arm("guard at 1 nat", "demo", ("train.max_behaviour_kl=1",)),
        Arm("walks of 25 steps", "demo", ("model.time_step=25",)),
        Arm("no pay for novelty", "demo", (UNPAID,)),
        Arm("pay for unique novelty", "demo", (_novelty("weight:0.25,unique:true"),)),
        Arm("one group of 128", "demo", (*ONE_GROUP, "dataloader.micro_batch_size=128")),
    ),
    best_of=(),
    steered=(),
    iterations=20,
)
"""A run of 20 iterations is the first third of the demo: the schedule stays."""

SEEDS = replace(ABLATION, about="The first third of the demo: does every seed rise, and hold?", arms=(NFT,))

CRYSTALS = Comparison(
    about="Prompts of `prototypes/rl_dng`; share of an iteration's 320 that are metastable, novel and unique "
    "among these. All are paid by that experiment's reward, but the policy gradient by that of `rl_dng_grpo`.",
    arms=_objectives("experiment/prototypes/rl_dng", Arm(POLICY_GRADIENT, "experiment/prototypes/rl_dng_grpo")),
    measure="msun",
    title="mSUN",
    unit=", %",
    scale=100,
    better="higher",
    shares={"unique": "unique", "novel": "novel"},
    legend="Unique and novel are shares of the samples with a sound cell, whose atoms do not overlap.",
    iterations=32,
    groups=20,
    each=16,
    best_of=(1, 2, 4, 8, 16),
    steered=(4,),
    common=("train.total_steps=56",),
)
"""10,240 scorings each."""

COMPARISONS = {"molecules": MOLECULES, "crystals": CRYSTALS, "ablation": ABLATION, "seeds": SEEDS}


def named_arms(comparison: str, names: Sequence[str]) -> tuple[Arm, ...]:
    """Arms of a comparison, in its order.

    Raises:
        UserError: it has none of such a name.
    """
    arms = COMPARISONS[comparison].arms
    known = [arm.name for arm in arms]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--arms {','.join(unknown)}: the arms of {comparison} are {', '.join(known)}")
    return tuple(arm for arm in arms if arm.name in names)
