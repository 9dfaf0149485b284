"""Relaxation of a molecule by GFN2-xTB. The task of the workers of `domains.molecule_panel`: no torch in here."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import BFGS
from numpy.typing import NDArray

from atomrl.force_fields.descent import descend
from atomrl.force_fields.gfn2 import singlepoint
from atomrl.workers.failure import Failure


class RelaxedMolecule(NamedTuple):
    """What a worker sends back.

    Attributes:
        positions: the last ones, Å, (N, 3).
        reason: why they are no minimum: `unconverged`, `slow`, or a reason of `gfn2.singlepoint`; None if they are.
    """

    positions: NDArray[np.float64]
    reason: str | None


def relax_molecule(
    item: tuple[NDArray[np.int64], NDArray[np.float64]],
    max_iterations: int,
    fmax: float,
    max_steps: int,
    max_seconds: float,
) -> RelaxedMolecule:
    """Move the atoms by BFGS until no force exceeds `fmax`.

    Args:
        item: a `Geometry` that passed `check_geometries`.
        max_iterations: of the self-consistent field.
        fmax: eV/Å.
        max_steps: see `descent.descend`.
        max_seconds: the same.
    """
    atoms = Atoms(numbers=item[0], positions=item[1])
    atoms.calc = GFN2(max_iterations)
    try:
        reason = descend(BFGS(atoms, logfile=None), fmax, max_steps, max_seconds)
    except Failure as failure:
        reason = failure.reason
    return RelaxedMolecule(atoms.positions, reason)


class GFN2(Calculator):
    """`gfn2.singlepoint` as a calculator of ASE: a relaxation then fails for the reasons that an evaluation has."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's own declaration

    def __init__(self, max_iterations: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._max_iterations = max_iterations

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Energy in eV and forces in eV/Å.

        Raises:
            Failure: of `gfn2.singlepoint`.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        computed = singlepoint((atoms.numbers, atoms.positions), self._max_iterations)
        self.results = {"energy": computed.energy, "forces": computed.forces}
