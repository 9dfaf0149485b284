"""A smooth form of what crystals are counted by: metastable, unique and novel at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from atomrl.core.normalize import require_number
from atomrl.measures.measure import BatchMetrics
from atomrl.rewards.components import RewardComponent
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure
    from torch import Tensor


class MetastabilityReward(RewardComponent):
    """exp(-e / scale) / n^crowding for a unique and novel crystal e eV/atom above the hull, else 0.

    n is the number of samples of its reduced formula in the iteration: they share what one of them would be worth, so
    that the policy does not make one formula many times.

    A product, where a sum of creativity and energy also pays for a known crystal of low energy and for a new one that
    falls apart. Below the hull it is 1; without an energy, or with an unsound cell, 0.

    Args:
        scale: eV/atom; 0.2 if not given, twice what counts as metastable.
        crowding: 0 leaves the number of samples out.
        scaling: `weight` and the other options of `RewardComponent`.

    Raises:
        UserError: `scale` is not above 0, or `crowding` below 0.
    """

    required_metrics: ClassVar[tuple[str, ...]] = ("unique", "novel", "e_above_hull")
    failed_value: float | None = 0.0
    compares = True

    def __init__(self, scale: float = 0.2, crowding: float = 0.0, **scaling: Any) -> None:
        super().__init__(**scaling)
        require_number("scale of MetastabilityReward", scale)
        if scale <= 0:
            raise UserError(f"MetastabilityReward's scale must be above 0 eV/atom, got {scale}")
        require_number("crowding of MetastabilityReward", crowding)
        if crowding < 0:
            raise UserError(f"MetastabilityReward's crowding must be 0 or more, got {crowding}")
        self.scale_ev, self.crowding = scale, crowding

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor:
        """In [0, 1], (B,)."""
        metrics_obj: BatchMetrics = kwargs["metrics_obj"]
        energies = metrics_obj["e_above_hull"].values
        low = torch.exp(-energies.clamp(min=0.0) / self.scale_ev).nan_to_num(nan=0.0)
        formulas = [crystal.composition.reduced_formula for crystal in gen_structures]
        counts = Counter(formulas)
        crowd = torch.tensor([counts[name] for name in formulas], dtype=low.dtype, device=low.device)
        return low * metrics_obj["unique"].values * metrics_obj["novel"].values / crowd**self.crowding
