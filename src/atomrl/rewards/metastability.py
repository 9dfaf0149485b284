"""A smooth form of what crystals are counted by: metastable, unique and novel at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from atomrl.core.normalize import require_number
from atomrl.measures.drawn_before import DRAWN_BEFORE
from atomrl.measures.measure import BatchMetrics
from atomrl.rewards.abstention import HULL_ENTRIES, abstain, check_entries
from atomrl.rewards.base import RewardComponent
from atomrl.rewards.fresh_formula import check_halved_at, discount
from atomrl.rewards.scores import Scores
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
        halved_at: with so many samples of its reduced formula in earlier iterations of the run a crystal is worth half,
            see `FreshFormulaReward`; None: these do not count.
        min_entries: as in `EnergyReward`.
        scaling: `weight` and the other options of `RewardComponent`.

    Raises:
        UserError: `scale` or `halved_at` is not above 0, `crowding` below 0, or `min_entries` no whole number from 0.
    """

    required_metrics: ClassVar[tuple[str, ...]] = ("unique", "novel", "e_above_hull")
    failed_value: float | None = 0.0
    compares = True

    def __init__(
        self,
        scale: float = 0.2,
        crowding: float = 0.0,
        halved_at: float | None = None,
        min_entries: int = 0,
        **scaling: Any,
    ) -> None:
        super().__init__(**scaling)
        require_number("scale of MetastabilityReward", scale)
        if scale <= 0:
            raise UserError(f"MetastabilityReward's scale must be above 0 eV/atom, got {scale}")
        require_number("crowding of MetastabilityReward", crowding)
        if crowding < 0:
            raise UserError(f"MetastabilityReward's crowding must be 0 or more, got {crowding}")
        if halved_at is not None:
            check_halved_at("MetastabilityReward", halved_at)
        self.scale_ev, self.crowding, self.halved_at = scale, crowding, halved_at
        self.min_entries = check_entries("MetastabilityReward", min_entries)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it is made of, and what its options ask for."""
        remembered = () if self.halved_at is None else (DRAWN_BEFORE,)
        return (*self.required_metrics, *remembered, *((HULL_ENTRIES,) if self.min_entries else ()))

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor | Scores:
        """In [0, 1], (B,); NaN where it abstains."""
        metrics_obj: BatchMetrics = kwargs["metrics_obj"]
        energies = metrics_obj["e_above_hull"].values
        low = torch.exp(-energies.clamp(min=0.0) / self.scale_ev).nan_to_num(nan=0.0)
        formulas = [crystal.composition.reduced_formula for crystal in gen_structures]
        counts = Counter(formulas)
        crowd = torch.tensor([counts[name] for name in formulas], dtype=low.dtype, device=low.device)
        values = low * metrics_obj["unique"].values * metrics_obj["novel"].values / crowd**self.crowding
        if self.halved_at is not None:
            values = values * discount(metrics_obj, self.halved_at)
        return abstain(values, 0.0, metrics_obj, self.min_entries)
