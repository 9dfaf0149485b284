"""A reward for what is not known yet, of molecules and of crystals."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from atomrl.measures.measure import BatchMetrics
from atomrl.rewards.components import RewardComponent


class NoveltyReward(RewardComponent):
    """1 for a novel sample, else 0; a molecule must be valid for it, a crystal's cell sound.

    Args:
        unique: whether it must also be the first of its kind in the iteration; then all samples of an iteration are
            scored together, after the last is drawn.
        scaling: `weight` and the other options of `RewardComponent`.
    """

    required_metrics: ClassVar[tuple[str, ...]] = ("unique", "novel")
    failed_value: float | None = 0.0

    def __init__(self, unique: bool = False, **scaling: Any) -> None:
        super().__init__(**scaling)
        self.compares = unique

    def compute(self, gen_structures: list[Any], **kwargs: Any) -> Tensor:
        """0 or 1, (B,)."""
        metrics_obj: BatchMetrics = kwargs["metrics_obj"]
        novel = metrics_obj["novel"].values
        return novel * metrics_obj["unique"].values if self.compares else novel
