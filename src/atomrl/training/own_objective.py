"""An objective of the user's: what it raises, and what it answers, is told by its own line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from atomrl.core.advantages import Advantages
from atomrl.core.objectives.base import Objective, Samples, StepLoss, Term
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.records import RewardTable, Trajectory
from atomrl.user_code.calling import calling
from atomrl.util.errors import UserError
from atomrl.util.own_frames import is_ours


class OwnObjective:
    """Asks an objective of the user's; implements `Objective`.

    Args:
        inner: theirs.
    """

    def __init__(self, inner: Objective) -> None:
        self.inner, self.name = inner, type(inner).__name__

    def _called(self, asked_for: str) -> AbstractContextManager[None]:
        """Around a call of it."""
        return calling(f"the objective {self.name}", self.inner, f"asked for {asked_for}")

    @property
    def needs_reference(self) -> bool:
        """Theirs."""
        with self._called("needs_reference"):
            return self.inner.needs_reference

    @property
    def needs_walk(self) -> bool:
        """Theirs."""
        with self._called("needs_walk"):
            return self.inner.needs_walk

    def old_decay(self, iteration: int) -> float | None:
        """Theirs."""
        with self._called("old_decay"):
            return self.inner.old_decay(iteration)

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """Theirs, (B,).

        Raises:
            UserError: they, or those of a channel, are no `Advantages` of B samples.
        """
        with self._called(f"the advantages of {len(table)} samples"):
            found = self.inner.advantages(table, group_ids, active, collective)
            if not isinstance(found, Advantages):
                raise UserError(
                    f"the objective {self.name}: advantages must return Advantages, got {type(found).__name__}"
                )
            self._require_rows("advantages", found.total, len(table))
            for name, values in found.channels.items():
                self._require_rows(f"advantages of the channel {name}", values, len(table))
            return found

    def terms(self, trajectory: Trajectory, epoch: int) -> Sequence[Term]:
        """Theirs.

        Raises:
            UserError: there are none.
        """
        with self._called("its terms"):
            found = self.inner.terms(trajectory, epoch)
            if not isinstance(found, Sequence) or not found:
                said = "an empty one" if isinstance(found, Sequence) else type(found).__name__
                raise UserError(f"the objective {self.name}: terms must return a list of terms, got {said}")
            return found

    def loss(self, policy: DiffusionPolicy, samples: Samples, term: Term) -> StepLoss:
        """Theirs, (B,).

        Raises:
            UserError: it, or what it counts, is no `StepLoss` of B samples, or has no gradient.
        """
        with self._called(f"the loss of {len(samples)} samples"):
            found = self.inner.loss(policy, samples, term)
            if not isinstance(found, StepLoss):
                raise UserError(f"the objective {self.name}: loss must return a StepLoss, got {type(found).__name__}")
            self._require_rows("the loss", found.loss, len(samples))
            if not found.loss.requires_grad:
                raise UserError(
                    f"the objective {self.name}: the loss has no gradient, so that nothing would be learned; compute "
                    "it from what the policy answers, without detach() or no_grad()"
                )
            for name, values in [*found.counts.items(), *found.largest.items()]:
                self._require_rows(f"what is counted as {name}", values, len(samples))
            return found

    def _require_rows(self, what: str, values: Tensor, samples: int) -> None:
        """Raise UserError for what is not one number per sample."""
        if not isinstance(values, Tensor) or values.shape != (samples,):
            got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise UserError(f"the objective {self.name}: {what} must be one number per sample, ({samples},), got {got}")


def asked(objective: Objective) -> Objective:
    """The objective as a training asks it: the package's own as it is."""
    return objective if is_ours(objective) else OwnObjective(objective)
