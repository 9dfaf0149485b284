"""Molecules as plain arrays, and the checks of a geometry before a force field is asked about it.

Worker processes import this module, so it must not import torch.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from atomrl.core.records import Structures


MIN_DISTANCE = 0.4
"""Å. Atoms closer than this overlap: no bond is shorter than H-H (0.74 Å), and at 0.001-0.3 Å GFN2 returns finite
but meaningless forces up to 6e7 eV/Å."""


MAX_EXTENT = 50.0
"""Å. A bounding box with a longer side belongs to a molecule whose coordinates ran away."""


MAX_GAP = 5.0
"""Å. An atom with no other atom within this distance has left the molecule. A force field calls such atoms free of
force, so without this check a molecule that flew apart would earn the best possible force reward."""


PAIRS_AT_ONCE = 2_000_000
"""Pairs of atoms whose distances are held at one time: a few float64 arrays of 16 MB."""


UNKNOWN_ELEMENT = "element"
"""Reason of a structure with an element that a force field does not know."""

ODD_ELECTRONS = "odd_electrons"
"""Flag of a neutral molecule with an odd number of electrons, evaluated with one unpaired electron."""


class Geometry(NamedTuple):
    """One molecule without padding: a plain tuple of arrays, cheap to send to a worker.

    Attributes:
        numbers: atomic numbers, (N,) int64.
        positions: Å, (N, 3) float64.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]


def split(structures: Structures) -> list[Geometry]:
    """The B structures of a padded batch as unpadded arrays, in order."""
    numbers = structures.numbers.detach().cpu().numpy()
    positions = structures.positions.detach().cpu().double().numpy()
    mask = structures.mask.detach().cpu().numpy()
    return [Geometry(z[real], xyz[real]) for z, xyz, real in zip(numbers, positions, mask, strict=True)]


def check_geometries(structures: Structures, elements: Collection[int]) -> list[str | None]:
    """Why a force field need not be asked about a structure; one entry per structure, None where it may be.

    Reasons, the first that holds: `no_atoms`; `nonfinite` (a coordinate is NaN or infinite); `element` (an atomic
    number that is not in `elements`); `exploded` (`MAX_EXTENT`, `MAX_GAP`); `overlap` (`MIN_DISTANCE`).

    Args:
        structures: B molecules, Å.
        elements: atomic numbers that the force field knows.
    """
    mask = structures.mask.detach().cpu().numpy()
    numbers = structures.numbers.detach().cpu().numpy()
    raw = structures.positions.detach().cpu().double().numpy()
    if mask.size == 0:
        return ["no_atoms"] * len(mask)
    finite = np.isfinite(raw).all(axis=2)
    # Beyond 1e100 squares overflow; such a molecule is exploded with any coordinate of that size.
    positions = np.clip(np.where((mask & finite)[..., None], raw, 0.0), -1e100, 1e100)
    nearest = _nearest(positions, mask)
    known = np.isin(numbers, list(elements))
    lowest = np.where(mask[..., None], positions, np.inf).min(axis=1)
    highest = np.where(mask[..., None], positions, -np.inf).max(axis=1)
    lonely = (nearest > MAX_GAP).any(axis=1) & (mask.sum(axis=1) > 1)
    conditions = {
        "no_atoms": ~mask.any(axis=1),
        "nonfinite": (mask & ~finite).any(axis=1),
        UNKNOWN_ELEMENT: (mask & ~known).any(axis=1),
        "exploded": (highest - lowest > MAX_EXTENT).any(axis=1) | lonely,
        "overlap": (nearest < MIN_DISTANCE).any(axis=1),
    }
    return [
        next((reason for reason, held in zip(conditions, row, strict=True) if held), None)
        for row in np.stack(list(conditions.values()), axis=1)
    ]


def odd_electrons(geometry: Geometry) -> bool:
    """Whether the neutral molecule has an odd number of electrons."""
    return bool(geometry.numbers.sum() % 2)


def neutral_info(geometry: Geometry) -> dict[str, int]:
    """Charge 0 and spin (2 S + 1) of a molecule with as few unpaired electrons as it can have, for `Atoms.info`."""
    return {"charge": 0, "spin": 1 + odd_electrons(geometry)}


def _nearest(positions: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance to the nearest other real atom, Å, (B, N).

    For an atom without another it is infinite; for padding it is 1, which is neither too near nor too far.
    """
    lot = max(1, PAIRS_AT_ONCE // mask.shape[1] ** 2)
    starts = range(0, len(mask), lot)
    return np.concatenate([_nearest_of(positions[at : at + lot], mask[at : at + lot]) for at in starts])


def _nearest_of(positions: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same of a few molecules."""
    squares = np.zeros((*mask.shape, mask.shape[1]))
    for axis in range(3):  # axis by axis: a (B, N, N, 3) array of differences would be the largest by far
        squares += (positions[:, :, None, axis] - positions[:, None, :, axis]) ** 2
    pairs = mask[:, :, None] & mask[:, None, :] & ~np.eye(mask.shape[1], dtype=bool)
    nearest = np.sqrt(np.where(pairs, squares, np.inf).min(axis=2))
    return np.where(mask, nearest, 1.0)
