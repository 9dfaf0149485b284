"""GFN2-xTB, the default force field for molecules: real quantum chemistry, 2-10 ms per QM9 molecule and core."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from atomrl.force_fields.base import Evaluation
from atomrl.structures.molecules import ODD_ELECTRONS, Geometry, check_geometries, odd_electrons, split
from atomrl.util.cpu_count import cores
from atomrl.util.errors import UserError
from atomrl.workers.pool import Outcome, WorkerPool

if TYPE_CHECKING:
    from concurrent.futures import Future

    from atomrl.core.records import Structures

ELEMENTS = frozenset(range(1, 87))
ATOM_TABLE = "assets/xtb_atom_energies.json"


class XTBForceField:
    """GFN2-xTB energies and forces of neutral molecules, in worker processes; implements `protocols.ForceField`.

    Geometries are checked first (`base.check_geometries`); the rest goes to the workers. Reasons of failure besides
    those of the checks: `scf`, `timeout`, `worker_died`. An odd number of electrons is evaluated with one unpaired
    electron and flagged.

    Args:
        workers: processes, one thread each; one per core that this process may use if None.
        timeout: seconds per molecule, after which its worker is killed.
        max_iterations: of the self-consistent field.
    """

    elements: frozenset[int] = ELEMENTS

    def __init__(self, workers: int | None = None, timeout: float = 10.0, max_iterations: int = 100) -> None:
        workers = cores() if workers is None else workers
        settings = {"max_iterations": max_iterations}
        self._pool = WorkerPool("atomrl.force_fields.gfn2:singlepoint", workers, timeout, settings)

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        """Energy (eV) and forces (eV/Å) of each structure, in order.

        Raises:
            UserError: the structures are periodic, or the workers cannot start.
        """
        return self.submit(structures).result()

    def submit(self, structures: Structures) -> PendingEvaluations:
        """The same in the background: `submit(structures).result()` is `evaluate(structures)`."""
        if structures.cell is not None:
            raise UserError(
                "GFN2-xTB evaluates molecules, got structures with a cell: choose a force field for crystals"
            )
        geometries = split(structures)
        reasons = check_geometries(structures, self.elements)
        sound = [geometry for geometry, reason in zip(geometries, reasons, strict=True) if reason is None]
        return PendingEvaluations(geometries, reasons, self._pool.submit(sound))

    def close(self) -> None:
        """End the workers."""
        self._pool.close()


@dataclass(frozen=True)
class PendingEvaluations:
    """Evaluations that workers are busy with.

    Attributes:
        geometries: all B of them.
        reasons: why a geometry was not sent, None where it was.
        outcomes: of those that were.
    """

    geometries: Sequence[Geometry]
    reasons: Sequence[str | None]
    outcomes: Future[list[Outcome]]

    def result(self) -> list[Evaluation]:
        """Wait for the workers; one evaluation per structure, in order."""
        outcomes = iter(self.outcomes.result())
        return [
            _evaluation(geometry, next(outcomes) if reason is None else Outcome(None, reason))
            for geometry, reason in zip(self.geometries, self.reasons, strict=True)
        ]


def atom_energies() -> dict[str, float]:
    """GFN2-xTB energies of isolated atoms, {symbol: eV}, for the elements of QM9 and GEOM-Drugs."""
    record = json.loads(files("atomrl").joinpath(ATOM_TABLE).read_text())
    return {symbol: float(energy) for symbol, energy in record["energies"].items()}


def _evaluation(geometry: Geometry, outcome: Outcome) -> Evaluation:
    """What a worker's outcome says about a geometry."""
    flags = (ODD_ELECTRONS,) if odd_electrons(geometry) else ()
    if outcome.reason is not None:
        return Evaluation.failed(len(geometry.numbers), outcome.reason, flags)
    energy, forces = outcome.value
    return Evaluation(energy, forces, None, flags)
