"""Relaxation of a crystal, cell and positions, with any ASE calculator."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from atomrl.chemistry.crystals import CellBounds, check_cells, from_pymatgen
from atomrl.extras import extra

with extra("crystals"):
    from pymatgen.core import Structure

NOT_CONVERGED = "not_converged"


@dataclass(frozen=True)
class Relaxation:
    """What became of a crystal.

    Attributes:
        structure: the last geometry, with the sites in the given order; the given one if it did not pass the checks.
        energy_per_atom: eV, of that geometry; NaN if there is none that passes the checks.
        converged: whether the largest force and cell gradient are below the bound.
        steps: of the optimizer.
        reason: None if it converged, else `not_converged`, a reason of `crystals.check_cells` (before or during), or
            `calculator: ` and the calculator's words.
    """

    structure: Structure
    energy_per_atom: float
    converged: bool
    steps: int
    reason: str | None


def relax(
    structure: Structure,
    calculator: Calculator,
    fmax: float = 0.1,
    max_steps: int = 300,
    bounds: CellBounds | None = None,
) -> Relaxation:
    """FIRE on positions and cell (Fréchet filter) until no force exceeds `fmax`.

    The geometry is checked before the first and after each step: one that collapses is stopped before it takes all time
    and memory. What the calculator raises as `CalculatorError` is a reason; the energy is then NaN.

    Args:
        structure: ordered.
        calculator: of ASE, giving energy, forces and stress.
        fmax: eV/Å; for the cell in the same unit, as ASE scales it by the number of atoms.
        max_steps: at which it stops unconverged.
        bounds: of the geometry; `CellBounds()` if None.
    """
    atoms = Atoms(
        numbers=[species.Z for species in structure.species],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )
    atoms.calc = calculator
    reason = _check(atoms, bounds)
    if reason is not None:
        return Relaxation(structure, float("nan"), False, 0, reason)
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)  # type: ignore[no-untyped-call]
    converged = False
    try:
        with warnings.catch_warnings():
            # scipy says so of the matrix logarithm of a cell that moved far; the next check judges the cell itself
            warnings.filterwarnings("ignore", message="logm result may be inaccurate")
            for done in optimizer.irun(fmax=fmax, steps=max_steps):
                converged, reason = done, _check(atoms, bounds)
                if reason is not None:
                    break
        energy = atoms.get_potential_energy() if reason is None else float("nan")  # type: ignore[no-untyped-call]
    except CalculatorError as error:
        reason, energy, converged = f"calculator: {error}", float("nan"), False
    if reason is not None:
        converged = False
    elif not converged:
        reason = NOT_CONVERGED
    return Relaxation(_structure(atoms), float(energy) / len(atoms), bool(converged), optimizer.nsteps, reason)


def _structure(atoms: Atoms) -> Structure:
    """The pymatgen structure of ASE atoms."""
    return Structure(atoms.cell.array, atoms.numbers, atoms.get_scaled_positions())  # type: ignore[no-untyped-call]


def _check(atoms: Atoms, bounds: CellBounds | None) -> str | None:
    """Why the geometry is not fit to be evaluated, or None."""
    return check_cells(from_pymatgen([_structure(atoms)]), bounds=bounds)[0]
