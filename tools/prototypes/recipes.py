"""The structure that the relaxation of a candidate starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor
from pymatgen.core import Element, Lattice, Structure

from tools.prototypes.candidate import Candidate
from tools.prototypes.library import prototype_structures

MOLECULE = "molecule:"
"""Prefix of the prototype labels of molecules in a cell of their own."""

BOX = 8.0
"""Å, edge of the cubic cell of a diatomic molecule: beyond CHGNet's cutoff of 6 Å, so its images do not interact."""

BOND_LENGTHS = {"H": 0.74, "N": 1.10, "O": 1.21, "F": 1.41, "Cl": 1.99, "Br": 2.28, "I": 2.67}
"""Å, of the diatomic molecules (CRC Handbook)."""

DLS_EXPANSION = 1.07
"""Data-mined lattice scaling takes the shortest contact for a typical bond, so it predicts cells a little small: the
relaxed volumes of 70 candidates were larger by this factor, median."""

AVOGADRO = 0.602214076
"""Å^3 per atom are cm^3/mol / this."""

NON_METALLIC = frozenset(("H", "B", "C", "N", "O", "F", "P", "S", "Cl", "As", "Se", "Br", "Te", "I"))
"""Compounds of these have volumes that follow bond lengths; those of the other elements follow atomic volumes."""


def start_structure(candidate: Candidate) -> Structure:
    """The substituted prototype at its guessed volume.

    Metals: the sum of the elements' atomic volumes (Zen's law). Elements in their own prototype: as it is. Others:
    pymatgen's data-mined lattice scaling (Chu et al., Comput. Mater. Sci. 146, 184 (2018)), times `DLS_EXPANSION`.
    """
    if candidate.prototype.startswith(MOLECULE):
        return molecule_cell(candidate.prototype.removeprefix(MOLECULE))
    structure = prototype_structures()[candidate.prototype].copy()
    elements = dict(candidate.elements)
    structure.replace_species({old: new for old, new in elements.items() if old != new})
    if all(old == new for old, new in elements.items()):
        return structure
    if len(elements) == 1 or not NON_METALLIC & set(elements.values()):
        structure.scale_lattice(sum(_atomic_volume(site.specie.symbol) for site in structure))
    else:
        predictor: Any = DLSVolumePredictor(min_scaling=0.2, max_scaling=5.0)  # type: ignore[no-untyped-call]
        structure.scale_lattice(predictor.predict(structure) * DLS_EXPANSION)
    return structure


def molecule_cell(name: str) -> Structure:
    """A diatomic molecule (`O2`, ...) in a cubic cell of `BOX`, or `S8`, the crown of sulfur, in 9 x 9 x 5 Å."""
    if name == "S8":
        return Structure(Lattice.tetragonal(9.0, 5.0), ["S"] * 8, _crown(), coords_are_cartesian=True)
    symbol = name.removesuffix("2")
    ends = [[0.0, 0.0, 0.0], [0.0, 0.0, BOND_LENGTHS[symbol]]]
    return Structure(Lattice.cubic(BOX), [symbol] * 2, ends, coords_are_cartesian=True)


def _crown(bond: float = 2.05, angle: float = 107.8) -> NDArray[np.float64]:
    """Positions of the S8 ring, (8, 3), from its bond length (Å) and angle (degrees); point group D4d."""
    radius = np.sqrt(2) * bond * np.sin(np.radians(angle / 2))
    side = 2 * radius * np.sin(np.pi / 8)
    height = np.sqrt(bond**2 - side**2) / 2
    corner = np.arange(8)
    turn = corner * np.pi / 4
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height * (-1.0) ** corner], axis=1)


def _atomic_volume(symbol: str) -> float:
    """Å^3 per atom of the element."""
    return float(Element(symbol).molar_volume) / AVOGADRO
