"""How many crystals a VAE gives back: by pymatgen's `StructureMatcher`, as the field counts it (Xie et al. 2022)."""

from __future__ import annotations

import numpy as np
import torch

from atomrl.core.records import Structures
from atomrl.matching.matcher import Tolerances, reduced_formula
from atomrl.matching.task import fits, reduce
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import check_cells, to_crystals
from atomrl.structures.tensors import CrystalTensors
from atomrl.workers.failure import Failure


def match_rate(vae: CrystalVAE, crystals: CrystalTensors) -> float:
    """Share of crystals whose reconstruction from the posterior's mean matches them.

    Matching takes milliseconds per crystal in this process: for validation sets of some dozens to a thousand.
    """
    with torch.no_grad():
        rebuilt = vae.reconstruct(vae.encode(crystals).mean, crystals.mask)
    reasons = mismatches(structures_of_batch(crystals), rebuilt)
    return float(np.mean([reason is None for reason in reasons]))


def structures_of_batch(crystals: CrystalTensors) -> Structures:
    """The same crystals with Cartesian positions."""
    positions = crystals.frac_coords @ crystals.cell * crystals.mask[..., None]
    return Structures(crystals.numbers, positions, crystals.mask > 0, crystals.cell)


def mismatches(originals: Structures, rebuilt: Structures, tolerances: Tolerances | None = None) -> list[str | None]:
    """Why each reconstruction does not match its original; one entry per crystal, None where it does.

    Reasons: those of `check_cells` for a reconstruction that is not fit to be looked at, `composition`, `reduction`
    and `structure`.

    Args:
        originals: B crystals.
        rebuilt: the same number, row by row.
        tolerances: of the matcher; by default those of the field.
    """
    within = Tolerances() if tolerances is None else tolerances
    reasons = check_cells(rebuilt)
    rows = [row for row, reason in enumerate(reasons) if reason is None]
    if rows:
        chosen = torch.tensor(rows, device=rebuilt.numbers.device)
        pairs = zip(to_crystals(originals[chosen]), to_crystals(rebuilt[chosen]), strict=True)
        for row, (original, other) in zip(rows, pairs, strict=True):
            reasons[row] = _mismatch(original, other, within)
    return reasons


def _mismatch(original: Crystal, other: Crystal, within: Tolerances) -> str | None:
    """Why two crystals with fit cells do not match."""
    if reduced_formula(original) != reduced_formula(other):
        return "composition"
    try:
        first, second = reduce(other), reduce(original)
    except Failure as failure:
        return failure.reason
    same = len(first.numbers) == len(second.numbers) and fits(first, second, within.ltol, within.stol, within.angle_tol)
    return None if same else "structure"
