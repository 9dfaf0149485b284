"""GFN2-xTB, the default force field for molecules: real quantum chemistry, some 10 ms per QM9 molecule and core."""

from __future__ import annotations

import json
from importlib.resources import files

from atomrl.force_fields.base import ForceFieldSpec
from atomrl.force_fields.molecules import MoleculeForceField
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

NAME = "GFN2-xTB"
ELEMENTS = frozenset(range(1, 87))
ATOM_TABLE = "assets/xtb_atom_energies.json"


class XTBForceField(MoleculeForceField):
    """GFN2-xTB energies, forces and properties of neutral molecules, in worker processes.

    Properties: `base.HOMO_LUMO_GAP`, eV; `base.DIPOLE_MOMENT`, Debye.

    Reason of failure besides those of `MoleculeForceField`: `scf`. An odd number of electrons is evaluated with one
    unpaired electron.

    Args:
        workers: of the run, or a number of processes; one per core that this process may use if None.
        timeout: seconds per molecule, after which its worker is killed.
        max_iterations: of the self-consistent field.
    """

    def __init__(self, workers: Workers | int | None = None, timeout: float = 10.0, max_iterations: int = 100) -> None:
        settings = {"max_iterations": max_iterations}
        executor = as_workers(workers).executor("atomrl.force_fields.gfn2:singlepoint", timeout, settings)
        super().__init__(NAME, ELEMENTS, executor)

    def atom_energies(self) -> dict[str, float]:
        """See `atom_energies`."""
        return atom_energies()


def atom_energies() -> dict[str, float]:
    """GFN2-xTB energies of isolated atoms, {symbol: eV}, for the elements of QM9 and GEOM-Drugs."""
    record = json.loads(files("atomrl").joinpath(ATOM_TABLE).read_text())
    return {symbol: float(energy) for symbol, energy in record["energies"].items()}


SPEC = ForceFieldSpec(
    NAME, lambda settings: XTBForceField(*(settings[k] for k in ("workers", "timeout", "max_iterations")))
)
