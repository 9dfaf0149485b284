"""Relaxation of a crystal, cell and positions, with any ASE calculator and optimizer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.optimize.optimize import Optimizer

from atomrl.core.records import Structures
from atomrl.force_fields.descent import descend
from atomrl.structures.crystals import CellBounds, check_cells
from atomrl.util.optional_imports import extra
from atomrl.workers.failure import Failure

with extra("crystals"):
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Relaxation:
    """What became of a crystal.

    Attributes:
        structure: the last geometry, with the sites in the given order; the given one if it did not pass the checks.
        energy_per_atom: eV, of that geometry; NaN if it does not pass the checks or the calculator failed.
        fmax: eV/Å, the largest force there, on an atom or the cell; NaN as the energy is.
        steps: of the optimizer.
        reason: None if it converged, else `unconverged`, `slow`, a reason of `crystals.check_cells` (before or during),
            or `calculator: ` and the calculator's words.
    """

    structure: Structure
    energy_per_atom: float
    fmax: float
    steps: int
    reason: str | None

    @property
    def converged(self) -> bool:
        """Whether the largest force, on an atom or the cell, is below the bound."""
        return self.reason is None


def relax(
    structure: Structure,
    calculator: Calculator,
    fmax: float = 0.1,
    max_steps: int = 300,
    bounds: CellBounds | None = None,
    optimizer: Callable[..., Optimizer] = FIRE,
    max_seconds: float = math.inf,
) -> Relaxation:
    """Move positions and cell (Fréchet filter) until no force exceeds `fmax`.

    Each geometry is checked before the calculator sees it: one that collapses is stopped before it takes all time and
    memory. What the calculator raises as `CalculatorError` is a reason; the energy is then NaN.

    Args:
        structure: ordered.
        calculator: of ASE, giving energy, forces and stress.
        fmax: eV/Å; for the cell in the same unit, as ASE scales it by the number of atoms.
        max_steps: see `descent.descend`.
        max_seconds: the same.
        bounds: of the geometry; `CellBounds()` if None.
        optimizer: of ASE, e.g. the class FIRE or BFGS.
    """
    atoms = Atoms(
        numbers=[species.Z for species in structure.species],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )
    atoms.calc = calculator
    reason = _refused(atoms, bounds)
    if reason is not None:
        return Relaxation(structure, math.nan, math.nan, 0, reason)
    cell = _CheckedCell(atoms, bounds)
    search = optimizer(cell, logfile=None)
    energy, largest = math.nan, math.nan
    try:
        with warnings.catch_warnings():
            # scipy says so of the matrix logarithm of a cell that moved far; the next check judges the cell itself
            warnings.filterwarnings("ignore", message="logm result may be inaccurate")
            reason = descend(search, fmax, max_steps, max_seconds)
        energy = float(atoms.get_potential_energy()) / len(atoms)  # type: ignore[no-untyped-call]
        largest = float(np.linalg.norm(cell.get_forces(), axis=1).max())  # type: ignore[no-untyped-call]
    except CalculatorError as error:
        reason = f"calculator: {error}"
    except Failure as failure:
        reason = failure.reason
    last = Structure(atoms.cell.array, atoms.numbers, atoms.get_scaled_positions())  # type: ignore[no-untyped-call]
    return Relaxation(last, energy, largest, search.nsteps, reason)


class _CheckedCell(FrechetCellFilter):
    """Rejects a step to a geometry that is not fit to be evaluated.

    Args:
        atoms: that move.
        bounds: see `relax`.
    """

    def __init__(self, atoms: Atoms, bounds: CellBounds | None) -> None:
        super().__init__(atoms)  # type: ignore[no-untyped-call]
        self._bounds = bounds

    def set_positions(self, new: Any, **options: Any) -> None:  # type: ignore[override] # ASE gives it two names
        """Take a step.

        Raises:
            Failure: a reason of `check_cells`.
        """
        super().set_positions(new, **options)  # type: ignore[no-untyped-call]
        reason = _refused(self.atoms, self._bounds)
        if reason is not None:
            raise Failure(reason)


def _refused(atoms: Atoms, bounds: CellBounds | None) -> str | None:
    """Why the geometry is not fit to be evaluated, or None."""
    numbers, positions, cell = (torch.tensor(part)[None] for part in (atoms.numbers, atoms.positions, atoms.cell.array))
    return check_cells(Structures(numbers, positions, numbers > 0, cell), bounds=bounds)[0]
