"""The convex hull of formation energies: how far a crystal is from the stable mixture of its composition.

Energies of candidates and of the hull must be on one scale, so a hull knows the model, the correction scheme and the
data that it was computed with, and refuses others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from atomrl.util.errors import UserError
from atomrl.util.files import write_json
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core import Composition, Element

ELEMENT_OUTSIDE_HULL = "element_outside_hull"
NO_ATOMS = "empty"
NO_ENERGY = "no_energy"

FORMAT = "atomrl-hull-1"
DECIMALS = 6
"""Of atomic fractions: compositions that agree to so many are one."""

ELEMENTS = 119
"""Length of a table by atomic number."""

SYSTEMS_AT_ONCE = 1024
"""Chemical systems that are compared with all compounds together, for the memory's sake."""

NEGATIVE = -1e-9
"""eV/atom. A reference above this formation energy is not below its elements and cannot shape the hull."""


@dataclass(frozen=True)
class HullKey:
    """What makes energies comparable.

    Attributes:
        model_id: name, version and hash of the model, e.g. `CHGNetForceField.model_id`.
        correction: correction scheme of its energies, e.g. `MP2020`.
        data_version: which set of reference structures.
        relaxed: whether the model relaxed each of them before it took the energy; None: not recorded, as in hulls of
            earlier versions.
    """

    model_id: str
    correction: str
    data_version: str
    relaxed: bool | None = None


@dataclass(frozen=True)
class HullEntry:
    """A reference phase.

    Attributes:
        composition: of any amount of it.
        energy_per_atom: eV.
        entry_id: where it comes from.
    """

    composition: Composition
    energy_per_atom: float
    entry_id: str


class Hull:
    """Lower convex hull of the energies of reference phases.

    Args:
        key: what the energies were computed with.
        entries: every element that a candidate may hold must be among them as a pure phase.

    Raises:
        UserError: an energy is not finite, or a composition is empty.
    """

    def __init__(self, key: HullKey, entries: Sequence[HullEntry]) -> None:
        for entry in entries:
            if not np.isfinite(entry.energy_per_atom) or entry.composition.num_atoms <= 0:
                raise UserError(
                    f"entry {entry.entry_id!r} of a hull has composition {entry.composition.formula!r} and energy "
                    f"{entry.energy_per_atom}: leave out phases whose evaluation failed"
                )
        self.key = key
        self.entries = tuple(entries)
        fractions = _fractions([entry.composition for entry in entries])
        energies = np.array([entry.energy_per_atom for entry in entries], dtype=np.float64)
        self._element_energies = np.full(ELEMENTS, np.inf)
        pure = np.flatnonzero((fractions > 0).sum(1) == 1)
        np.minimum.at(self._element_energies, fractions[pure].argmax(1), energies[pure])
        known = np.isfinite(self._element_energies)
        closed = ~(fractions[:, ~known] > 0).any(1)  # others have no formation energy
        fractions, energies = fractions[closed], energies[closed]
        mixed = fractions[(fractions > 0).sum(1) > 1]
        self._compounds = (np.unique(mixed.round(DECIMALS), axis=0) > 0).astype(np.float32)
        formation = energies - fractions @ np.where(known, self._element_energies, 0.0)
        below = formation < NEGATIVE
        self._fractions = csr_matrix(fractions[below])
        self._formation = formation[below]
        self._holds = (fractions[below] > 0).astype(np.float32)

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers of the elements that it knows as pure phases."""
        return frozenset(np.flatnonzero(np.isfinite(self._element_energies)).tolist())

    def require(
        self,
        model_id: str,
        correction: str,
        data_version: str | None = None,
        relaxed: bool | None = None,
        remedy: str = "choose the hull of this model, or make it by `atomrl data reference`; where a hull-NAME.json of "
        "another model is in the way, delete it and the energies-NAME.jsonl beside it first",
    ) -> None:
        """Raise UserError for energies of another scale.

        Args:
            model_id: of the candidates' energies.
            correction: of the candidates' energies.
            data_version: of the reference data; any if None.
            relaxed: whether the model relaxes what they are of; any if None, or if the hull does not record it.
            remedy: what to do about it, for the error.

        Raises:
            UserError: one of them is not the hull's.
        """
        asked = HullKey(model_id, correction, data_version or self.key.data_version, relaxed)
        for name, value in asdict(asked).items():
            own = asdict(self.key)[name]
            if None not in (value, own) and value != own:
                raise UserError(
                    f"the hull was computed with {name} {own!r}, the energies come with {value!r}: "
                    f"energies above a hull on another scale mean nothing; {remedy}"
                )

    def energy_above_hull(
        self, compositions: Sequence[Composition], energies: Sequence[float] | NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], list[str | None]]:
        """Energy above the hull of each candidate, eV/atom; below 0 for one that is more stable than any mixture.

        Args:
            compositions: of C candidates.
            energies: eV/atom, (C,), on the hull's scale (see `require`).

        Returns:
            Values (C,), NaN where there is none, and the reasons: `empty`, `element_outside_hull`, `no_energy` (the
            energy is not finite).
        """
        fractions = _fractions(compositions)
        per_atom = np.asarray(energies, dtype=np.float64)
        known = np.isfinite(self._element_energies)
        conditions = {
            NO_ATOMS: fractions.sum(1) == 0,
            ELEMENT_OUTSIDE_HULL: (fractions[:, ~known] > 0).any(1),
            NO_ENERGY: ~np.isfinite(per_atom),
        }
        held = np.stack(list(conditions.values()), axis=1)
        reasons = [next((name for name, holds in zip(conditions, row, strict=True) if holds), None) for row in held]
        rows = np.flatnonzero(~held.any(1))
        values = np.full(len(fractions), np.nan)
        reference = fractions[rows] @ np.where(known, self._element_energies, 0.0)
        values[rows] = per_atom[rows] - reference - self._mixture(fractions[rows])
        return values, reasons

    def holds_compound(self, chemical_system: Collection[int]) -> bool:
        """Whether the hull of these elements (atomic numbers) has a vertex that is not an element.

        Where it has none, every compound with a negative formation energy counts as stable, which says little.
        """
        return bool(self.hold_compounds([Composition({Element.from_Z(number): 1 for number in chemical_system})])[0])

    def hold_compounds(self, compositions: Sequence[Composition]) -> NDArray[np.bool_]:
        """`holds_compound` of the chemical system of each composition, (C,)."""
        return _count_within(_fractions(compositions), self._holds) > 0

    def count_compounds(self, compositions: Sequence[Composition]) -> NDArray[np.int64]:
        """How many compounds of the elements of each composition, and no others, the reference knows, (C,).

        Different compositions count, stable or not, however many phases each has; the pure elements do not. Where there
        are few, nobody has looked for what a candidate would fall apart into.
        """
        return _count_within(_fractions(compositions), self._compounds)

    def save(self, path: Path) -> None:
        """Write JSON.

        Raises:
            UserError: the file cannot be written.
        """
        record = {
            "format": FORMAT,
            "key": asdict(self.key),
            "formulas": [entry.composition.formula for entry in self.entries],
            "energies_per_atom": [entry.energy_per_atom for entry in self.entries],
            "ids": [entry.entry_id for entry in self.entries],
        }
        write_json(path, record)

    @classmethod
    def load(cls, path: Path) -> Hull:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or not such a file, has no entries, or has a formula with what is no element.
        """
        try:
            record = json.loads(path.read_text())
            if record["format"] != FORMAT:
                raise ValueError(f"format {record['format']!r}")
            columns = zip(record["formulas"], record["energies_per_atom"], record["ids"], strict=True)
            entries = [HullEntry(_composition(formula), float(energy), str(name)) for formula, energy, name in columns]
            if not entries:
                raise ValueError("it has no entries")
            return cls(HullKey(**record["key"]), entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"cannot read the hull {path}: {error}; give a hull that `atomrl data reference` wrote"
            ) from error

    def _mixture(self, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lowest formation energy of a mixture of reference phases, eV/atom, (C,).

        A linear program per candidate: phases w >= 0 that use up at most the candidate's atoms (elements left over have
        formation energy 0). All are solved as one sparse program, which for many elements stays small where a
        geometric hull grows without bound.
        """
        starts = range(0, len(fractions), SYSTEMS_AT_ONCE)
        found = [
            np.argwhere(_within(fractions[at : at + SYSTEMS_AT_ONCE], self._holds)) + np.array([at, 0]) for at in starts
        ]
        candidates, phases = np.concatenate([np.zeros((0, 2), dtype=np.int64), *found]).T
        lowest = np.zeros(len(fractions))
        if len(phases) == 0:
            return lowest
        present = fractions > 0
        row_of = np.cumsum(present).reshape(present.shape) - 1  # one constraint per element of a candidate
        picked = self._fractions[phases].tocoo()
        matrix = csr_matrix(
            (picked.data, (row_of[candidates[picked.row], picked.col], picked.row)), (int(present.sum()), len(phases))
        )
        solution = linprog(self._formation[phases], A_ub=matrix, b_ub=fractions[present], method="highs")
        if solution.status != 0:  # w = 0 is feasible and the amounts are bounded, so there is an optimum
            raise RuntimeError(f"the linear program of the hull was not solved: {solution.message}")
        np.add.at(lowest, candidates, self._formation[phases] * solution.x)
        return lowest


def _within(fractions: NDArray[np.generic], holds: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of R compounds, whose elements are in `holds` (R, 119), have none but a candidate's, (C, R)."""
    elsewhere: NDArray[np.float32] = (fractions == 0).astype(np.float32) @ holds.T
    return np.equal(elsewhere, 0)


def _count_within(fractions: NDArray[np.float64], holds: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many of the compounds of `_within` have none but a candidate's elements, (C,)."""
    systems, place = np.unique(fractions > 0, axis=0, return_inverse=True)
    counts = np.zeros(len(systems), dtype=np.int64)
    for start in range(0, len(systems), SYSTEMS_AT_ONCE):
        rows = slice(start, start + SYSTEMS_AT_ONCE)
        counts[rows] = _within(systems[rows], holds).sum(1)
    return counts[place.reshape(-1)]


def _composition(formula: object) -> Composition:
    """A formula as `save` writes it; pymatgen takes mappings too, and invents species for unknown symbols.

    Raises:
        ValueError: it is no text, or names something that is no element.
    """
    if not isinstance(formula, str):
        raise ValueError(f"{formula!r} is no formula")
    composition = Composition(formula)
    if strangers := [str(species) for species in composition if not isinstance(species, Element)]:
        raise ValueError(f"in {formula!r}, {', '.join(strangers)} is no element")
    return composition


def _fractions(compositions: Sequence[Composition]) -> NDArray[np.float64]:
    """Atomic fractions by atomic number, (C, 119); a row of zeros for an empty composition."""
    table = np.zeros((len(compositions), ELEMENTS))
    for row, composition in zip(table, compositions, strict=True):
        for species, amount in composition.items():
            row[species.Z] += amount
    totals = table.sum(1, keepdims=True)
    return table / np.where(totals > 0, totals, 1.0)
