"""Advantages, and the groups that samples are compared in."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from atomrl.core.collective import Alone
from atomrl.core.protocols import Collective
from atomrl.core.records import Advantages

__all__ = ["Advantages", "Groups", "share"]


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

    def worst(self, values: Tensor, eligible: Tensor) -> Tensor:
        """For each sample the smallest finite value among the eligible ones of its group, (B,); NaN without one."""
        lowest = self.smallest(torch.where(eligible & values.isfinite(), values, torch.inf))
        return torch.where(lowest.isfinite(), lowest, torch.nan)[self.index]

    def filled(self, values: Tensor) -> Tensor:
        """Values (B,) with the worst finite one of their group in place of what is not finite; NaN without one."""
        known = values.isfinite()
        return torch.where(known, values, self.worst(values, known))

    def best(self, values: Tensor) -> Tensor:
        """Row of the largest of (B,) values in each group, (groups,) int64: the first among equals; NaN is worst."""
        ordered = torch.where(values.isnan(), -torch.inf, values)
        rows = torch.arange(len(values), dtype=torch.float64, device=values.device)
        leads = ordered == self.largest(ordered)[self.index]
        return self.smallest(torch.where(leads, rows, torch.inf)).long()

    def largest(self, values: Tensor) -> Tensor:
        """Largest of (B,) values in each group, (groups,); -inf for a group without values."""
        return -self.smallest(-values)


def share(flags: Tensor, collective: Collective | None = None) -> float:
    """Share of (B, ...) bools that are True, over all ranks."""
    counts = torch.tensor([int(flags.sum()), flags.numel()], dtype=torch.float64, device=flags.device)
    some, whole = (collective or Alone()).sum(counts)
    return float(some / whole)
