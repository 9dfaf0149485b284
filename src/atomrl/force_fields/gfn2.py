"""One GFN2-xTB calculation through tblite. The task of `xtb.XTBForceField`'s workers: no torch in here.

Source of the method: Bannwarth, Ehlert, Grimme 2019, doi 10.1021/acs.jctc.8b01176.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr, Debye, Hartree
from numpy.typing import NDArray
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator, Result

from atomrl.force_fields.base import DIPOLE_MOMENT, HOMO_LUMO_GAP, NONFINITE, Computed
from atomrl.structures.molecules import Geometry, odd_electrons
from atomrl.workers.failure import Failure

UNPAIRED = {
    1: 1, 5: 1, 6: 2, 7: 3, 8: 2, 9: 1, 13: 1, 14: 2,
    15: 3, 16: 2, 17: 1, 33: 3, 35: 1, 53: 1, 80: 0, 83: 3,
}  # fmt: skip
"""Unpaired electrons of an isolated atom in its ground state, for the elements of QM9 and GEOM-Drugs."""


def singlepoint(
    item: tuple[NDArray[np.int64], NDArray[np.float64]], max_iterations: int, unpaired: int | None = None
) -> Computed:
    """Energy, forces and the properties `HOMO_LUMO_GAP` and `DIPOLE_MOMENT` of a neutral molecule.

    Args:
        item: atomic numbers (N,) and positions (N, 3) in Å: a `Geometry` that passed `check_geometries`.
        max_iterations: of the self-consistent field; 100 converges all but garbage.
        unpaired: electrons; as few as the electron count allows if not given.

    Raises:
        Failure: `scf`, `overlap`, `element`, `nonfinite_result` or `xtb: ` and the library's own words.
    """
    geometry = Geometry(*item)
    if unpaired is None:
        unpaired = int(odd_electrons(geometry))
    try:
        calculator = Calculator("GFN2-xTB", geometry.numbers, geometry.positions / Bohr, uhf=unpaired)
        calculator.set("verbosity", 0)
        calculator.set("max-iter", max_iterations)
        result = calculator.singlepoint()
    except TBLiteRuntimeError as error:
        raise Failure(_reason(str(error))) from error
    energy = float(result.get("energy")) * Hartree
    forces = -result.get("gradient") * (Hartree / Bohr)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise Failure(NONFINITE)
    dipole = float(np.linalg.norm(result.get("dipole"))) * (Bohr / Debye)
    return Computed(energy, forces, {HOMO_LUMO_GAP: homo_lumo_gap(result), DIPOLE_MOMENT: dipole})


def homo_lumo_gap(result: Result) -> float:
    """Lowest empty minus highest occupied orbital, eV; NaN if all orbitals of the minimal basis are occupied.

    With an odd number of electrons the half-filled orbital is the occupied one.
    """
    energies, electrons = result.get("orbital-energies"), round(float(result.get("orbital-occupations").sum()))
    lowest_empty = (electrons + 1) // 2
    if lowest_empty >= len(energies):
        return float("nan")
    return float(energies[lowest_empty] - energies[lowest_empty - 1]) * Hartree


def compute_atom_energies() -> dict[str, float]:
    """Energies of isolated atoms, {symbol: eV}, computed afresh; `xtb.atom_energies` reads the stored ones."""
    energies = {}
    for number, unpaired in UNPAIRED.items():
        atom = (np.array([number]), np.zeros((1, 3)))
        energies[chemical_symbols[number]] = singlepoint(atom, max_iterations=250, unpaired=unpaired).energy
    return energies


def atom_table(energies: Mapping[str, float], program: str) -> str:
    """The text of `xtb.ATOM_TABLE`: to make it anew, write `atom_table(compute_atom_energies(), program)` there.

    Args:
        energies: eV by symbol.
        program: name and version of what computed them.
    """
    record = {
        "method": "GFN2-xTB",
        "program": program,
        "unit": "eV",
        "unpaired_electrons": {chemical_symbols[number]: count for number, count in UNPAIRED.items()},
        "energies": {symbol: round(energy, 9) for symbol, energy in energies.items()},
    }
    return json.dumps(record, indent=2) + "\n"


def _reason(message: str) -> str:
    """Short class of an error of tblite."""
    known = {"not converged": "scf", "Too close": "overlap", "No support for elements": "element"}
    found = [reason for words, reason in known.items() if words in message]
    return found[0] if found else "xtb: " + " ".join(message.split())
