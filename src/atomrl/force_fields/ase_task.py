"""What a worker process does for a calculator of ASE: energy and forces of one molecule. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from atomrl.structures.molecules import Geometry
from atomrl.user_code.load import load_object
from atomrl.workers.failure import Failure

NONFINITE = "nonfinite_result"

_CALCULATORS: dict[str, Any] = {}
"""The calculator of this worker, by its target and options: making one may take seconds."""


def singlepoint(geometry: Geometry, target: str, options: Mapping[str, Any]) -> tuple[float, NDArray[np.float64]]:
    """Energy, eV, and forces, eV/Å, (N, 3).

    Args:
        geometry: of the molecule.
        target: of the calculator's class.
        options: of its constructor.

    Raises:
        Failure: `nonfinite_result`: the calculator answers NaN or infinity.
    """
    atoms: Any = Atoms(geometry.numbers, geometry.positions, calculator=calculator(target, options))
    energy, forces = float(atoms.get_potential_energy()), np.asarray(atoms.get_forces(), dtype=np.float64)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise Failure(NONFINITE)
    return energy, forces


def calculator(target: str, options: Mapping[str, Any]) -> Any:
    """The calculator of this class with these options: one in each process."""
    key = repr((target, sorted(options.items())))
    if key not in _CALCULATORS:
        _CALCULATORS[key] = load_object(target)(**options)
    return _CALCULATORS[key]
