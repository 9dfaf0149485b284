"""Compares relaxed textbook compounds with experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from tools.prototypes.build import read_records
from tools.prototypes.references import (
    CESIUM_CHLORIDE,
    PEROVSKITE,
    ROCK_SALT,
    RUTILE,
    ZINCBLENDE,
    textbook_candidate,
)
from tools.prototypes.symmetry import conventional_lengths

ENERGY_TOLERANCE = 0.2
"""eV/atom."""

LENGTH_TOLERANCE = 0.03

MEASURED: dict[str, tuple[str, str, float, tuple[float, ...]]] = {
    "NaCl": (ROCK_SALT, "NaCl", -2.13, (5.64,)),
    "MgO": (ROCK_SALT, "NaCl", -3.12, (4.21,)),
    "SrTiO3": (PEROVSKITE, "CaTiO3", -3.47, (3.905,)),
    "CsCl": (CESIUM_CHLORIDE, "CsCl", -2.30, (4.12,)),
    "ZnS": (ZINCBLENDE, "ZnS", -1.07, (5.41,)),
    "TiO2": (RUTILE, "TiO2", -3.26, (4.59, 2.96)),
}
"""Compound: prototype, its parent, formation enthalpy at 298 K (eV/atom), conventional a, and c where it differs (Å).

CHGNet's energies are on the scale of the Materials Project's 2020 corrections, which act on compounds only: the
elements' own energies are the right references. Source: CRC Handbook of Chemistry and Physics."""


@dataclass(frozen=True)
class Comparison:
    """One compound beside experiment.

    Attributes:
        formula: of the compound.
        formation_energy: calculated, eV/atom.
        measured_energy: eV/atom.
        lengths: calculated a (and c), Å.
        measured_lengths: Å.
    """

    formula: str
    formation_energy: float
    measured_energy: float
    lengths: tuple[float, ...]
    measured_lengths: tuple[float, ...]

    @property
    def energy_agrees(self) -> bool:
        """Within `ENERGY_TOLERANCE`."""
        return abs(self.formation_energy - self.measured_energy) <= ENERGY_TOLERANCE

    @property
    def lengths_agree(self) -> bool:
        """Within `LENGTH_TOLERANCE`."""
        pairs = zip(self.lengths, self.measured_lengths, strict=True)
        return all(abs(length / measured - 1) <= LENGTH_TOLERANCE for length, measured in pairs)


def check(save: Path) -> list[Comparison]:
    """Print the table for a build and return its rows.

    Raises:
        UserError: there is no build in this folder.
    """
    rows = compare(read_records(save / "relaxed.jsonl"))
    print(f"{'':8}{'formation energy, eV/atom':>32}{'lattice constants, Å':>32}")
    print(f"{'':8}{'here':>10}{'measured':>10}{'error':>8}{'':>4}{'here':>14}{'measured':>12}{'error':>8}")
    for row in rows:
        errors = [length / measured - 1 for length, measured in zip(row.lengths, row.measured_lengths, strict=True)]
        verdict = "" if row.energy_agrees and row.lengths_agree else "  beyond tolerance"
        print(
            f"{row.formula:8}{row.formation_energy:10.3f}{row.measured_energy:10.2f}"
            f"{row.formation_energy - row.measured_energy:8.3f}{'':>4}"
            f"{' '.join(f'{length:.3f}' for length in row.lengths):>14}"
            f"{' '.join(f'{length:g}' for length in row.measured_lengths):>12}"
            f"{max(errors, key=abs):8.1%}{verdict}"
        )
    missing = sorted(MEASURED.keys() - {row.formula for row in rows})
    if missing:
        print(f"not yet relaxed: {', '.join(missing)}")
    return rows


def compare(records: Sequence[dict[str, Any]]) -> list[Comparison]:
    """The compounds of `MEASURED` that a build holds together with their elements, in the table's order."""
    relaxed = [record for record in records if record["reason"] is None]
    references: dict[int, float] = {}
    for record in relaxed:
        if len(set(record["numbers"])) == 1:
            number = record["numbers"][0]
            references[number] = min(record["energy"], references.get(number, np.inf))
    found = {record["key"]: record for record in relaxed}
    rows = []
    for formula, (prototype, parent, energy, lengths) in MEASURED.items():
        key = textbook_candidate(prototype, parent, formula).key
        if key not in found or not set(found[key]["numbers"]) <= references.keys():
            continue
        record = found[key]
        elements = float(np.mean([references[number] for number in record["numbers"]]))
        here = _conventional(record)[: len(lengths)]
        rows.append(Comparison(formula, record["energy"] - elements, energy, here, lengths))
    return rows


def _conventional(record: dict[str, Any]) -> tuple[float, ...]:
    """Lengths a and c of the conventional cell, Å."""
    structure = Structure(record["lattice"], record["numbers"], record["frac_coords"])
    lengths = conventional_lengths(structure, 0.05)
    return float(lengths[0]), float(lengths[2])
