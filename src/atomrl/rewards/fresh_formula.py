"""A reward for formulas that the run has not drawn yet, and the discount that it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from atomrl.core.normalize import require_number
from atomrl.measures.drawn_before import DRAWN_BEFORE
from atomrl.measures.measure import BatchMetrics
from atomrl.rewards.base import RewardComponent
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


def check_halved_at(name: str, halved_at: float) -> None:
    """Raise UserError for a number of samples that cannot be, of the component `name`."""
    require_number(f"halved_at of {name}", halved_at)
    if halved_at <= 0:
        raise UserError(f"{name}'s halved_at must be above 0 samples, got {halved_at}")


def discount(metrics: BatchMetrics, halved_at: float) -> Tensor:
    """1 / (1 + n / `halved_at`), (B,), with n the samples of the formula in earlier iterations of the run."""
    return 1 / (1 + metrics[DRAWN_BEFORE].values / halved_at)


class FreshFormulaReward(RewardComponent):
    """1 / (1 + n / `halved_at`), n how often earlier iterations of the run drew the reduced formula in a sound cell.

    In a sum it pays for new formulas; in a product (`reward.combine: product`) it discounts what the others pay.

    Args:
        halved_at: so many earlier samples leave one half.
        scaling: `weight` and the other options of `RewardComponent`.

    Raises:
        UserError: `halved_at` is no number above 0.
    """

    required_metrics: ClassVar[tuple[str, ...]] = (DRAWN_BEFORE,)
    failed_value: float | None = 0.0

    def __init__(self, halved_at: float = 1.0, **scaling: Any) -> None:
        super().__init__(**scaling)
        check_halved_at("FreshFormulaReward", halved_at)
        self.halved_at = halved_at

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor:
        """In (0, 1], (B,)."""
        return discount(kwargs["metrics_obj"], self.halved_at)
