"""What a worker process does for a calculator of ASE: energy and forces of one molecule. No torch in here."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from numpy.typing import NDArray

from atomrl.force_fields.base import NONFINITE
from atomrl.structures.molecules import Geometry, neutral_info
from atomrl.user_code.load import load_object
from atomrl.workers.failure import Failure


class SinglePoint:
    """Energies and forces of neutral molecules with as few unpaired electrons as they can have.

    Calculators that read `charge` and `spin`, which is 2 S + 1, of `Atoms.info` are told so.

    Args:
        target: of the calculator's class.
        options: of its constructor.
        folder: see `calculator`.
        pickled: the calculator, or what makes it, if nothing can import it.
    """

    def __init__(self, target: str, options: Mapping[str, Any], folder: str, pickled: bytes | None = None) -> None:
        self._calculator = calculator(target, options, folder, pickled)

    def __call__(self, geometry: Geometry) -> tuple[float, NDArray[np.float64]]:
        """Energy, eV, and forces, eV/Å, (N, 3), of a molecule.

        Raises:
            Failure: `nonfinite_result`: the calculator answers NaN or infinity.
            ValueError: see `forces_of`.
        """
        atoms: Any = Atoms(*geometry, info=neutral_info(geometry))
        atoms.calc = self._calculator
        energy, forces = float(atoms.get_potential_energy()), forces_of(atoms)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise Failure(NONFINITE)
        return energy, forces


def forces_of(atoms: Any) -> NDArray[np.float64]:
    """Forces by the calculator of ASE's atoms, eV/Å, (N, 3).

    Raises:
        ValueError: the calculator gives them in another shape.
    """
    forces = np.asarray(atoms.get_forces(), dtype=np.float64)
    if forces.shape != (len(atoms), 3):
        raise ValueError(f"the calculator gives forces of shape {forces.shape}, not ({len(atoms)}, 3)")
    return forces


def calculator(target: str, options: Mapping[str, Any], folder: str, pickled: bytes | None = None) -> Any:
    """A calculator of this class with these options, or the one that was sent.

    One that works by files works in a folder of its own, below its `directory` or else below `folder`: two workers in
    one folder would overwrite each other's files, and read each other's results.
    """
    found = load_object(target) if pickled is None else pickle.loads(pickled)  # noqa: S301 - from our own parent
    made: Any = found if isinstance(found, BaseCalculator) else found(**options)
    if hasattr(made, "directory"):
        above = Path(folder) if Path(made.directory) == Path() else Path(made.directory)
        made.directory = own = above / f"worker-{os.getpid()}"
        own.mkdir(parents=True, exist_ok=True)
    return made
