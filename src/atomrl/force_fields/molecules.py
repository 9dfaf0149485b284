"""Energies and forces of molecules, by a task that runs in worker processes or by a network in this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from atomrl.force_fields.base import Computed, Evaluation
from atomrl.force_fields.exceptions import Exceptions
from atomrl.structures.molecules import ODD_ELECTRONS, Geometry, check_geometries, odd_electrons, split
from atomrl.util.errors import UserError
from atomrl.workers.executor import Outcome

if TYPE_CHECKING:
    from atomrl.core.records import Structures


class Computes(Protocol):
    """Computes molecules that passed the checks: an `Executor`, or something in this process."""

    def map(self, items: Sequence[object]) -> list[Outcome]:
        """Outcomes of `Geometry`s, in their order: the fields of `base.Computed`, or a reason."""

    def close(self) -> None:
        """Give back workers."""


class MoleculeForceField:
    """Base of a force field for neutral molecules; implements `protocols.ForceField`.

    Geometries are checked first (`structures.molecules.check_geometries`); the rest goes to the workers. Reasons of
    failure besides those of the checks and of the task: `timeout`, `worker_died`. An odd number of electrons is a flag.

    Args:
        name: for messages.
        elements: atomic numbers that it knows.
        executor: of a task that takes a `Geometry` and returns energy (eV) and forces (eV/Å, (N, 3)), and perhaps
            properties: the fields of `base.Computed`.
    """

    def __init__(self, name: str, elements: frozenset[int], executor: Computes) -> None:
        self.name, self.elements, self._executor = name, elements, executor
        self._exceptions = Exceptions(name, "molecules")

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        """Energy (eV) and forces (eV/Å) of each structure, in order.

        Raises:
            UserError: the structures are periodic, or the workers cannot start.
        """
        if structures.cell is not None:
            raise UserError(
                f"{self.name} evaluates molecules, got structures with a cell: choose a force field for crystals"
            )
        geometries = split(structures)
        reasons = check_geometries(structures, self.elements)
        found = self._executor.map([g for g, reason in zip(geometries, reasons, strict=True) if reason is None])
        self._exceptions.note([outcome.reason for outcome in found])
        outcomes = iter(found)
        return [
            _evaluation(geometry, next(outcomes) if reason is None else Outcome(None, reason))
            for geometry, reason in zip(geometries, reasons, strict=True)
        ]

    def atom_energies(self) -> Mapping[str, float]:
        """Energies of elements to subtract from a molecule's, {symbol: eV}: of isolated atoms, or fitted to its data.

        Raises:
            UserError: it has none.
        """
        raise UserError(
            f"{self.name} has no energies of isolated atoms: give reward.energy_atom_refs={{symbol: eV, ...}} or null"
        )

    def close(self) -> None:
        """End the workers."""
        self._executor.close()


def _evaluation(geometry: Geometry, outcome: Outcome) -> Evaluation:
    """What a worker's outcome says about a geometry."""
    flags = (ODD_ELECTRONS,) if odd_electrons(geometry) else ()
    if outcome.reason is not None:
        return Evaluation.failed(len(geometry.numbers), outcome.reason, flags)
    computed = Computed(*outcome.value)
    return Evaluation(computed.energy, computed.forces, None, flags, computed.properties)
