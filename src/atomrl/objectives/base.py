"""What an objective sees of one transition, and what it must answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from atomrl.advantages import Advantages
from atomrl.protocols import Collective
from atomrl.records import RewardTable


@dataclass(frozen=True)
class StepTerms:
    """One transition of B samples.

    Attributes:
        log_prob: under the current policy, (B,), differentiable.
        old_log_prob: under the behaviour policy, (B,).
        advantages: (B,), 0 for a sample that takes no part.
        active: (B,) bool, False for samples that take no part in any term.
        balance: the transition's std / c, see `records.Transition`.
        divergence: KL(current || reference) of the step, (B,), or None if nobody asked.
    """

    log_prob: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    active: Tensor
    balance: float
    divergence: Tensor | None


@dataclass(frozen=True)
class StepLoss:
    """An objective's answer.

    Attributes:
        loss: (B,), differentiable; 0 for inactive samples.
        counts: {name: (B,)} per-sample quantities whose means go to the log.
    """

    loss: Tensor
    counts: Mapping[str, Tensor]


class Objective(Protocol):
    """Turns scores into advantages and transitions into losses."""

    @property
    def needs_reference(self) -> bool:
        """Whether `StepTerms.divergence` must be computed."""

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """Advantages of the B samples of this process.

        Args:
            table: their scores.
            group_ids: (B,); a group is whole in one process.
            active: (B,) bool, False for samples whose trajectory is unusable.
            collective: what compares samples beyond their groups sums over it; alone if None.
        """

    def loss(self, terms: StepTerms) -> StepLoss:
        """Loss of one transition."""
