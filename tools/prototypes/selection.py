"""Which relaxed structures belong in the set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import covalent_radii
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.structures.cells import canonical
from tools.prototypes.candidate import REFERENCE
from tools.prototypes.symmetry import primitive

CONTACT = 0.6
"""Shortest contact allowed, as a share of the sum of covalent radii: N2's triple bond has 0.77, metals about 1."""

VOLUME_PER_ATOM = (4.0, 130.0)
"""Å^3; diamond has 5.7, cesium 118. Molecules in boxes (256) serve the hull of a build but are no crystals."""

LOWEST_FORMATION_ENERGY = -5.0
"""eV/atom; the most stable known compounds of these elements, such as LaF3, have about -4.5."""

HIGHEST_ABOVE_HULL = 0.3
"""eV/atom. Ninety percent of the metastable phases known lie within 0.1 (Sun et al., Sci. Adv. 2, e1600225 (2016));
three times that keeps strained relatives, from which a generator learns shapes, and drops what has no chemistry."""

SEARCH = 3.5
"""Å, radius of the search for contacts; covalent radii add up to less than 4.9, times `CONTACT` 2.95."""


SYMMETRY_TOLERANCE = 0.01
"""Å, of the search for a primitive cell: relaxation can raise the symmetry."""

CHUNK = 200
"""Structures whose energies above the hull are solved together."""


@dataclass(frozen=True)
class SelectedCrystal:
    """A relaxed structure on its way into the set.

    Attributes:
        structure: Niggli-reduced primitive cell.
        prototype: label of the structure that it was made from.
        energy: eV/atom.
        spacegroup: international number.
        formation_energy: relative to the elements, eV/atom.
        above_hull: relative to the set's hull, eV/atom.
    """

    structure: Structure
    prototype: str
    energy: float
    spacegroup: int
    formation_energy: float
    above_hull: float

    @property
    def formula(self) -> str:
        """Reduced formula."""
        return str(self.structure.composition.reduced_formula)


@dataclass(frozen=True)
class Selection:
    """What was kept and why others were not.

    Attributes:
        crystals: kept, sorted by chemical system, formula and energy.
        dropped: number of relaxed structures by reason.
        hull: of all plausible structures; also of molecules in boxes, which are no crystals.
    """

    crystals: list[SelectedCrystal]
    dropped: dict[str, int]
    hull: Hull


def select(records: Sequence[dict[str, Any]], hull_key: HullKey) -> Selection:
    """Plausible, distinct structures of a build with their energies above the hull of all plausible ones.

    Args:
        records: lines of a build; those with a `reason` are passed over.
        hull_key: of the hull.
    """
    dropped: Counter[str] = Counter()
    plausible: list[tuple[Structure, dict[str, Any]]] = []
    entries: list[HullEntry] = []
    for record in sorted((record for record in records if record["reason"] is None), key=lambda record: record["key"]):
        structure = Structure(record["lattice"], record["numbers"], record["frac_coords"])
        fault = _fault(structure)
        if fault is None:
            plausible.append((structure, record))
        else:
            dropped[fault] += 1
        if fault is None or record["kind"] == REFERENCE:
            entries.append(HullEntry(structure.composition, record["energy"], record["key"]))
    formation = _formation_energies(plausible, element_energies(entries))
    keys = [record["key"] for _, record in plausible]
    wrong = {key for key, energy in zip(keys, formation, strict=True) if energy < LOWEST_FORMATION_ENERGY}
    dropped["formation_energy"] += len(wrong)
    hull = Hull(hull_key, _lowest([entry for entry in entries if entry.entry_id not in wrong]))
    crystals = []
    for (structure, record), energy, above in zip(plausible, formation, _above_hull(plausible, hull), strict=True):
        if record["key"] in wrong:
            continue
        if above > HIGHEST_ABOVE_HULL:
            dropped["above_hull"] += 1
            continue
        cell = canonical(primitive(structure, SYMMETRY_TOLERANCE))
        crystals.append(
            SelectedCrystal(cell, record["prototype"], record["energy"], record["spacegroup"], energy, max(0.0, above))
        )
    kept = _distinct(crystals)
    dropped["duplicate"] += len(crystals) - len(kept)
    return Selection(
        sorted(kept, key=lambda crystal: (crystal.structure.chemical_system, crystal.formula, crystal.energy)),
        {reason: count for reason, count in sorted(dropped.items()) if count},
        hull,
    )


def element_energies(entries: Iterable[HullEntry]) -> dict[str, float]:
    """Lowest energy of each element, {symbol: eV/atom}."""
    lowest: dict[str, float] = {}
    for entry in entries:
        if len(entry.composition) == 1:
            symbol = str(entry.composition.elements[0])
            lowest[symbol] = min(entry.energy_per_atom, lowest.get(symbol, np.inf))
    return dict(sorted(lowest.items()))


def _fault(structure: Structure) -> str | None:
    """Why a structure is implausible by its geometry."""
    volume = structure.volume / len(structure)
    if not VOLUME_PER_ATOM[0] <= volume <= VOLUME_PER_ATOM[1]:
        return "volume"
    first, second, _, distances = structure.get_neighbor_list(SEARCH)
    radii = covalent_radii[[site.specie.Z for site in structure]]
    return "contact" if (distances < CONTACT * (radii[first] + radii[second])).any() else None


def _distinct(crystals: Iterable[SelectedCrystal]) -> list[SelectedCrystal]:
    """One of each set of matching structures, the lowest in energy; matched within a reduced formula only."""
    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
    buckets: defaultdict[str, list[SelectedCrystal]] = defaultdict(list)
    for crystal in sorted(crystals, key=lambda crystal: crystal.energy):
        kept = buckets[crystal.formula]
        if not any(matcher.fit(crystal.structure, other.structure) for other in kept):
            kept.append(crystal)
    return [crystal for kept in buckets.values() for crystal in kept]


def _formation_energies(
    relaxed: Sequence[tuple[Structure, dict[str, Any]]], references: dict[str, float]
) -> list[float]:
    """Energies relative to the elements, eV/atom."""
    return [
        record["energy"] - float(np.mean([references[site.specie.symbol] for site in structure]))
        for structure, record in relaxed
    ]


def _above_hull(relaxed: Sequence[tuple[Structure, dict[str, Any]]], hull: Hull) -> list[float]:
    """Energies above the hull, eV/atom."""
    values: list[float] = []
    for start in range(0, len(relaxed), CHUNK):
        part = relaxed[start : start + CHUNK]
        energies = [record["energy"] for _, record in part]
        values += hull.energy_above_hull([structure.composition for structure, _ in part], energies)[0].tolist()
    return values


def _lowest(entries: Iterable[HullEntry]) -> list[HullEntry]:
    """The lowest entry of each reduced formula."""
    lowest: dict[str, HullEntry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.energy_per_atom, entry.entry_id)):
        lowest.setdefault(entry.composition.reduced_formula, entry)
    return list(lowest.values())
