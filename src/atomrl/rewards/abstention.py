"""Abstention: a component gives no score where what it compares with says too little."""

from __future__ import annotations

import torch
from torch import Tensor

from atomrl.core.records import ABSTAINED
from atomrl.measures.measure import BatchMetrics
from atomrl.rewards.scores import Scores
from atomrl.util.errors import UserError

HULL_ENTRIES = "hull_entries"


def check_entries(name: str, min_entries: object) -> int:
    """The number of compounds that the hull of a sample's elements must hold, for the component `name`.

    Raises:
        UserError: it is no whole number from 0.
    """
    if isinstance(min_entries, bool) or not isinstance(min_entries, int) or min_entries < 0:
        raise UserError(f"{name}'s min_entries must be a whole number from 0, got {min_entries!r}")
    return min_entries


def abstain(values: Tensor, lowest: float, metrics: BatchMetrics, min_entries: int) -> Tensor | Scores:
    """Values (B,) without those that a hull of few compounds would pay for: NaN, with the reason `abstained`.

    A sample that earns `lowest` keeps it, whatever its hull: an evaluation that failed, or a crystal that is known, is
    no guess.

    Args:
        values: (B,), of a component.
        lowest: the least that it can be.
        metrics: of the same samples; asked for `hull_entries`, unless `min_entries` is 0.
        min_entries: fewer different compounds than this are few; 0: none are.
    """
    if not min_entries:
        return values
    few = (metrics[HULL_ENTRIES].values < min_entries) & (values > lowest)
    reasons = tuple(ABSTAINED if row else None for row in few.tolist())
    return Scores(torch.where(few, torch.nan, values), reasons)
