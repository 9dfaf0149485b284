"""Rejection fine-tuning: denoise the best of each group, and nothing else. The control without a negative part.

L = mean over all samples of k mean (eps_theta - eps)^2 / f, where k is 1 for a sample that is kept and f is
`kept_fraction`. Kept are, in each group, those whose advantage is among the best f, with all that tie with the last of
them; a sample whose advantage is not above its group's mean never is. So the size of a step does not depend on f, but
grows with ties, and shrinks where few are above the mean; the log's `kept_fraction` says how many were kept.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from atomrl.core.advantages import Advantages, Groups, share
from atomrl.core.objectives.base import StepLoss
from atomrl.core.objectives.forward import ForwardObjective, Predictions, forward_spec
from atomrl.core.objectives.forward_options import RejectionOptions
from atomrl.core.protocols import Collective
from atomrl.core.records import RewardTable


class Rejection(ForwardObjective[RejectionOptions]):
    """The objective; see the module's docstring."""

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """`clip_advantage` for a sample that is kept, 0 for the others, (B,); no bound makes the best ones alike."""
        found = self._compare(table, group_ids, active, collective)
        groups = Groups.of(group_ids)
        same = groups.index[:, None] == groups.index[None, :]
        better = (same & (found.total[None, :] > found.total[:, None])).sum(1)
        places = (groups.sum(torch.ones_like(found.total)) * self.options.kept_fraction)[groups.index]
        kept = active & (found.total > 0) & (better < places)
        total = torch.where(kept, self.options.clip_advantage, 0.0).double()
        return replace(found, total=total, stats={**found.stats, "kept_fraction": share(kept, collective)})

    def draw_loss(self, predictions: Predictions) -> StepLoss:
        """L of one draw, (B,)."""
        error = predictions.mean((predictions.current - predictions.target).square())
        return StepLoss(predictions.advantages * error / self.options.kept_fraction, {})


SPEC = forward_spec(Rejection, RejectionOptions, "rejection")
