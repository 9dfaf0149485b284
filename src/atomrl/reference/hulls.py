"""A hull of known crystals, and which elements it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase.data import chemical_symbols

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.data.packed_crystals import PackedCrystals
from atomrl.reference.energies import Energies
from atomrl.structures.crystals import compositions_of
from atomrl.util.errors import UserError


def lowest_phases(crystals: PackedCrystals, ids: Sequence[str], energies: Energies) -> list[HullEntry]:
    """The phase of lowest energy of each reduced formula, of the crystals that have an energy."""
    best: dict[str, HullEntry] = {}
    for entry in _entries(crystals, ids, energies):
        formula = entry.composition.formula
        if formula not in best or entry.energy_per_atom < best[formula].energy_per_atom:
            best[formula] = entry
    return list(best.values())


def closed_hull(key: HullKey, entries: Sequence[HullEntry], energies: Energies) -> Hull:
    """A hull that knows at least one element.

    Raises:
        UserError: no crystal has an energy, or none of a pure element.
    """
    if not entries:
        raise UserError(f"no crystal has an energy by {key.model_id} (failures: {energies.failures})")
    hull = Hull(key, entries)
    if not hull.elements:
        raise UserError(f"no pure element has an energy by {key.model_id} (failures: {energies.failures})")
    return hull


def require_element(crystals: PackedCrystals) -> None:
    """Raise UserError for crystals of which none is a pure element, before any of them is evaluated."""
    starts = crystals.offsets[:-1]
    if not bool(
        np.equal(np.maximum.reduceat(crystals.numbers, starts), np.minimum.reduceat(crystals.numbers, starts)).any()
    ):
        raise UserError(
            f"none of the {len(crystals):,} crystals is a pure element, and formation energies need those: give more "
            "known crystals, e.g. --phases prototypes"
        )


def missing_elements(crystals: PackedCrystals, hull: Hull) -> list[str]:
    """Symbols of the elements in crystals that the hull has no pure phase of, by atomic number."""
    return [chemical_symbols[number] for number in np.unique(crystals.numbers).tolist() if number not in hull.elements]


def _entries(crystals: PackedCrystals, ids: Sequence[str], energies: Energies) -> Iterator[HullEntry]:
    """Each crystal with an energy, by its reduced composition."""
    rows = np.flatnonzero(np.isfinite(energies.per_atom)).tolist()
    for row, formula in zip(rows, compositions_of(map(crystals.crystal, rows)), strict=True):
        yield HullEntry(formula.reduced_composition, float(energies.per_atom[row]), ids[row])
