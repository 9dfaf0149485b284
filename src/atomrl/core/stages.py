"""What happens to scores before advantages are made of them: each stage is a small class, RewardTable -> RewardTable.

A reward says what a sample is worth by itself; a stage may compare it with the others of its group, or of the batch.

    gates -> penalties -> total -> failed scores
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Protocol

import torch
from torch import Tensor

from atomrl.core.advantages import Groups
from atomrl.core.collective import Alone
from atomrl.core.protocols import Collective, Reward
from atomrl.core.records import GATED, Prompts, RewardTable, Structures
from atomrl.util.errors import UserError

GATES = ("floor", "mask", "published")
FAILED = ("worst", "mask")
TOTAL = "reward"
"""Diagnostic that adds a sample's channels up."""


@dataclass(frozen=True)
class SampleContext:
    """What a stage may look at beside the scores of B samples.

    Attributes:
        prompts: their groups and ids.
        structures: the decoded samples.
        active: (B,) bool, False for a sample whose trajectory is unusable.
        collective: the processes of the run.
        estimates: what z0_pred stands for, {place in the walk: Structures}, where rewards are shaped.
    """

    prompts: Prompts
    structures: Structures
    active: Tensor
    collective: Collective
    estimates: Mapping[int, Structures] = field(default_factory=dict)

    @classmethod
    def of(cls, structures: Structures, prompts: Prompts) -> SampleContext:
        """The context of samples of this process alone, all usable."""
        return cls(
            prompts, structures, torch.ones(len(prompts), dtype=torch.bool, device=prompts.sizes.device), Alone()
        )

    @cached_property
    def groups(self) -> Groups:
        """The samples by group; a group is whole in its process."""
        return Groups.of(self.prompts.group_ids)


class Stage(Protocol):
    """One rule between scores and advantages."""

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """The table with the rule applied; the one given stays as it is."""


def apply_stages(stages: Sequence[Stage], table: RewardTable, samples: SampleContext) -> RewardTable:
    """The table after all stages, in order."""
    return reduce(lambda so_far, stage: stage(so_far, samples), stages, table)


def score_alone(reward: Reward, stages: Sequence[Stage], structures: Structures, prompts: Prompts) -> RewardTable:
    """The scores, after all stages, of samples that are not trained on. Scored on the CPU, by this process."""
    samples, asked = structures.to(torch.device("cpu")), prompts.to(torch.device("cpu"))
    return apply_stages(stages, reward.score(samples, asked), SampleContext.of(samples, asked))


def total_reward(reward: Reward, stages: Sequence[Stage], structures: Structures, prompts: Prompts) -> Tensor:
    """The total reward of samples that are not trained on, (B,): what the log calls `reward`. See `score_alone`.

    Raises:
        UserError: neither the reward nor a stage adds one up.
    """
    table = score_alone(reward, stages, structures, prompts)
    if TOTAL not in table.diagnostics:
        raise UserError(
            f"{type(reward).__name__} has channels ({', '.join(table.channels)}) and no total, by which samples could "
            f"be chosen: give a reward with the diagnostic {TOTAL!r}"
        )
    return table.diagnostics[TOTAL]


@dataclass(frozen=True)
class Gate:
    """A channel that only samples with a property earn, e.g. only stable molecules.

    Attributes:
        channel: what is gated.
        gate: `floor`: a sample without the property gets its group's worst value with it; in a group without one the
            gate is off. `mask`: NaN with the reason "gated". `published`: 0, which is better than any negative score.
        condition: diagnostic that is above 0 for a sample with the property.
    """

    channel: str
    gate: str = "floor"
    condition: str = "stability"

    def __post_init__(self) -> None:
        """Raise UserError for an unknown gate."""
        if self.gate not in GATES:
            raise UserError(f"gate is one of {', '.join(GATES)}; got {self.gate!r}")

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """NaN stays NaN."""
        values = _column(table.channels, self.channel, "channel")
        passes = _column(table.diagnostics, self.condition, "diagnostic") > 0
        reasons, withheld = table.reasons, table.withheld
        if self.gate == "published":
            gated = values * passes
        elif self.gate == "mask":
            gated, reasons = torch.where(passes, values, torch.nan), mark(reasons, ~passes, GATED)
            withheld = _also_withheld(table, {self.channel: ~passes})
        else:
            floor = samples.groups.worst(values, passes)
            gated = torch.where(passes | floor.isnan() | values.isnan(), values, floor)
        return replace(table, channels={**table.channels, self.channel: gated}, reasons=reasons, withheld=withheld)


@dataclass(frozen=True)
class Penalties:
    """Adds one channel to another, which learns from the sum: what a sample pays for instability, for instance.

    Attributes:
        source: the channel of penalties; it is no channel any more.
        target: the channel that they are added to.
    """

    source: str
    target: str

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """NaN in either is NaN in the sum."""
        penalties = _column(table.channels, self.source, "channel")
        together = _column(table.channels, self.target, "channel") + penalties
        kept = {name: values for name, values in table.channels.items() if name != self.source}
        withheld = _also_withheld(table, {self.target: table.left_out(self.source)})
        del withheld[self.source]
        return replace(table, channels={**kept, self.target: together}, withheld=withheld)


@dataclass(frozen=True)
class Total:
    """Writes the weighted sum of all channels as the diagnostic `reward`: what the log shows and the best is chosen by.

    Attributes:
        weights: by channel; a channel without one counts once.
    """

    weights: Mapping[str, float]

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """See `weighted_sum`."""
        return replace(table, diagnostics={TOTAL: weighted_sum(table.channels, self.weights), **table.diagnostics})


@dataclass(frozen=True)
class FailedScores:
    """Decides what a failed score (NaN) counts as; the one place that does.

    A score withheld on purpose (`RewardTable.left_out`) and the scores of a sample that is not active stay as they are.
    If every sample of a group failed, NaN stays, too: an objective leaves it out.

    Attributes:
        failed: `worst`: the worst finite score of its group; `mask`: NaN, so that the sample is left out.
        over_batch: the worst of the batch of all processes instead, for an objective that normalises over that.
    """

    failed: str = "worst"
    over_batch: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for an unknown rule."""
        if self.failed not in FAILED:
            raise UserError(f"failed is one of {', '.join(FAILED)}; got {self.failed!r}")

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """Scores that the rule gives are marked in `RewardTable.filled`."""
        if self.failed == "mask":
            return table
        groups = Groups.whole(samples.active, samples.collective) if self.over_batch else samples.groups
        channels, filled = {}, {}
        for name, values in table.channels.items():
            known = values.isfinite() & samples.active
            worst = groups.worst(values, known)
            filled[name] = ~values.isfinite() & samples.active & ~table.left_out(name) & worst.isfinite()
            channels[name] = torch.where(filled[name], worst, values)
        return replace(table, channels=channels, filled=filled)


@dataclass(frozen=True)
class FailedTotal:
    """Lets a sample without a total count as the worst of the batch of all processes, so that failing does not pay.

    Nothing learns from a total: the log shows its mean, and the best iteration may be chosen by it.

    Attributes:
        name: of the diagnostic that holds totals, if the reward gives it.
    """

    name: str

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """NaN stays where no sample has a total."""
        if self.name not in table.diagnostics:
            return table
        values = table.diagnostics[self.name]
        filled = Groups.whole(values, samples.collective).filled(values)
        return replace(table, diagnostics={**table.diagnostics, self.name: filled})


def weighted_sum(columns: Mapping[str, Tensor], weights: Mapping[str, float] | None = None) -> Tensor:
    """Sum of columns (B,) times their weights, (B,); NaN where one that counts is NaN.

    Args:
        columns: by name, at least one.
        weights: by name; a column without one counts once, and one of weight 0 not at all.
    """
    by_name = {name: (weights or {}).get(name, 1.0) for name in columns}
    shares = [by_name[name] * values for name, values in columns.items() if by_name[name]]
    return torch.stack(shares).sum(0) if shares else torch.zeros_like(next(iter(columns.values())))


def withhold(table: RewardTable, rows: Tensor, reason: str) -> RewardTable:
    """The table with no score at all at the rows (B,) bool, on purpose, and that said to be the reason."""
    channels = {name: torch.where(rows, torch.nan, values) for name, values in table.channels.items()}
    reasons = tuple(reason if gone else old for old, gone in zip(table.reasons, rows.tolist(), strict=True))
    withheld = _also_withheld(table, dict.fromkeys(table.channels, rows))
    return replace(table, channels=channels, reasons=reasons, withheld=withheld)


def _also_withheld(table: RewardTable, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is missing on purpose by channel, with these rows (B,) bool of some of them."""
    before = {name: table.left_out(name) for name in table.channels}
    return before | {name: before[name] | more.to(before[name].device) for name, more in rows.items()}


def mark(reasons: Sequence[str | None], rows: Tensor, reason: str) -> tuple[str | None, ...]:
    """Reasons, with this one at the rows (B,) bool that had none."""
    return tuple(reason if old is None and bad else old for old, bad in zip(reasons, rows.tolist(), strict=True))


def _column(columns: Mapping[str, Tensor], name: str, kind: str) -> Tensor:
    """A column that a stage reads.

    Raises:
        UserError: the reward does not give it.
    """
    if name not in columns:
        raise UserError(f"a stage reads the {kind} {name}, the reward gives {', '.join(sorted(columns)) or 'none'}")
    return columns[name]
