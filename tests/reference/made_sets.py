"""Known crystals as users have them: entries of pymatgen, CSV files; and a force field that costs nothing."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.cif import CifWriter

from atomrl.core.records import Structures
from atomrl.force_fields.crystals import CrystalEvaluation, failed
from atomrl.structures.crystals import compositions

CRYSTALS = {
    "na": Structure(Lattice.cubic(4.2), ["Na", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "cl": Structure.from_spacegroup("Cmce", Lattice.orthorhombic(6.2, 4.4, 8.2), ["Cl"], [[0, 0.12, 0.1]]),
    "rock-salt": Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "dense-salt": Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "magnesia": Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
}
"""Sodium, chlorine, two salts; and magnesia, whose elements are not among them."""

PER_ATOM = {"Na": -1.3, "Cl2": -1.8, "NaCl": -3.4, "MgO": -6.0}


def write_entries(path: Path, crystals: Mapping[str, Structure] = CRYSTALS) -> Path:
    """As `dumpfn` writes a list of entries."""
    entries = [ComputedStructureEntry(crystal, -1.0, entry_id=name) for name, crystal in crystals.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([entry.as_dict() for entry in entries]))
    return path


def write_csv(path: Path, crystals: Mapping[str, Structure] = CRYSTALS) -> Path:
    """With the columns of the field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        writer.writerows([name, str(CifWriter(crystal))] for name, crystal in crystals.items())
    return path


class Formulas:
    """A force field of crystals by formula; notes what it was asked, may fail, and may be interrupted."""

    model_id, correction, elements = "formulas-1", "none", frozenset(range(1, 95))

    def __init__(self, failing: Mapping[str, str] | None = None, patience: int = 100):
        self.asked: list[str] = []
        self.failing, self.patience = failing or {}, patience

    def evaluate(self, structures: Structures) -> list[CrystalEvaluation]:
        """One result per crystal; cells of eight atoms are 0.1 eV/atom lower: rock salt is below the dense one."""
        return list(self._results(structures))

    def close(self) -> None:
        """Nothing to give back."""

    def _results(self, structures: Structures) -> Iterable[CrystalEvaluation]:
        for formula, size in zip(compositions(structures), structures.sizes.tolist(), strict=True):
            if len(self.asked) == self.patience:
                raise KeyboardInterrupt
            name = formula.reduced_formula
            self.asked.append(name)
            energy = size * (PER_ATOM[name] - 0.1 * (size == 8))
            known = CrystalEvaluation(energy, np.zeros((size, 3)), None, stress=np.zeros((3, 3)))
            yield failed(size, self.failing[name]) if name in self.failing else known
