"""Advantages inside groups: how much better a sample did than its siblings."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from atomrl.collective import Alone
from atomrl.protocols import Collective
from atomrl.records import Stats

EPSILON = 1e-8


@dataclass(frozen=True)
class Advantages:
    """What each sample's steps are reinforced with.

    Attributes:
        total: (B,), one number for all steps of a sample; float64.
        channels: {name: (B,)}, each channel's weighted and clamped share, for the log.
        stats: counts for the log.
    """

    total: Tensor
    channels: dict[str, Tensor]
    stats: Stats = field(default_factory=dict)


@dataclass(frozen=True)
class Groups:
    """Samples by group.

    Attributes:
        index: place of each sample's group, 0..count-1, (B,) int64.
        count: number of groups.
        collective: processes that the groups reach over. They all must ask the same things in the same order.
    """

    index: Tensor
    count: int
    collective: Collective = field(default_factory=Alone)

    @staticmethod
    def of(group_ids: Tensor) -> Groups:
        """Groups from global group numbers (B,); each is whole in its process."""
        names, index = torch.unique(group_ids, return_inverse=True)
        return Groups(index, len(names))

    @staticmethod
    def whole(values: Tensor, collective: Collective | None = None) -> Groups:
        """All of (B,) values in one group, with those of the other processes if a collective is given."""
        return Groups(torch.zeros(len(values), dtype=torch.int64, device=values.device), 1, collective or Alone())

    def sum(self, values: Tensor) -> Tensor:
        """Sum of (B,) values in each group, (groups,)."""
        start = torch.zeros(self.count, dtype=values.dtype, device=values.device)
        return self.collective.sum(start.index_add_(0, self.index, values))

    def smallest(self, values: Tensor) -> Tensor:
        """Smallest of (B,) values in each group, (groups,); +inf for a group without values."""
        start = torch.full((self.count,), torch.inf, dtype=values.dtype, device=values.device)
        return self.collective.gather(start.scatter_reduce_(0, self.index, values, "amin")[None]).amin(0)

    def largest(self, values: Tensor) -> Tensor:
        """Largest of (B,) values in each group, (groups,); -inf for a group without values."""
        return -self.smallest(-values)


def fill_failed(rewards: Tensor, groups: Groups, mode: str) -> tuple[Tensor, Tensor]:
    """Decide what a failed score (NaN) counts as.

    Args:
        rewards: (B,), NaN where scoring failed.
        groups: of the samples.
        mode: `worst`: the group's worst finite value; `mask`: leave the sample out.

    Returns:
        Rewards without NaN (0 where left out) and the samples that take part, (B,) bool. A group without any finite
        value takes no part in either mode.
    """
    finite = torch.isfinite(rewards)
    if mode == "mask":
        return torch.where(finite, rewards, 0.0), finite
    if mode != "worst":
        raise ValueError(f"failed is `worst` or `mask`, got {mode!r}")
    worst = groups.smallest(torch.where(finite, rewards, torch.inf))[groups.index]
    filled = torch.where(finite, rewards, worst)
    known = torch.isfinite(filled)
    return torch.where(known, filled, 0.0), known


def group_advantages(rewards: Tensor, active: Tensor, groups: Groups) -> Tensor:
    """(r - mean) / (population std + 1e-8) in each group over the active samples, (B,); 0 for the others.

    A group of one, or of equal rewards, has zero advantage.
    """
    weight = active.to(rewards.dtype)
    count = groups.sum(weight).clamp(min=1)
    mean = groups.sum(rewards * weight) / count
    centred = (rewards - mean[groups.index]) * weight
    std = (groups.sum(centred.square()) / count).sqrt()
    lowest = groups.smallest(torch.where(active, rewards, torch.inf))
    highest = groups.largest(torch.where(active, rewards, -torch.inf))
    spread = (highest > lowest)[groups.index]
    return torch.where(spread, centred / (std[groups.index] + EPSILON), 0.0)
