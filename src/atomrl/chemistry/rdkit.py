"""RDKit validity and names of a batch of molecules, in worker processes that can be killed.

| profile | bonds |
|---|---|
| `edm-2022` | of the published distance table, for the whole batch at once |
| `edm-2022-single-bonds` | the same pairs, each taken for a single bond: the published metric of GEOM-Drugs |
| `rdkit-xyz2mol` | perceived by RDKit, see `perceived_task`; its success alone is not validity |

A molecule that takes too long counts as invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from atomrl.chemistry.bonds import bond_orders
from atomrl.chemistry.rdkit_task import BondedMolecule, without_hydrogens
from atomrl.core.records import Structures
from atomrl.structures.molecules import split
from atomrl.util.closeable import Closing
from atomrl.workers.executor import Outcome, Workers
from atomrl.workers.local import as_workers

PROTOCOL, SINGLE_BONDS, PERCEIVED = "edm-2022", "edm-2022-single-bonds", "rdkit-xyz2mol"
PROFILES = (PROTOCOL, SINGLE_BONDS, PERCEIVED)
TASK = "atomrl.chemistry.rdkit_task:name"
PERCEIVING = "atomrl.chemistry.perceived_task:perceive"
NONFINITE = "nonfinite"


BONDED_AT_ONCE = 256
"""Molecules whose bond orders, one for each pair of atoms, are held at a time."""


@dataclass(frozen=True)
class RdkitRecord:
    """What RDKit says about one molecule.

    Attributes:
        valid: it could be sanitised as a whole.
        smiles: its name: canonical SMILES of its largest fragment, hydrogens written out; None if invalid.
        fragments: number of connected parts; 0 if invalid.
        rings: number of rings, see `rdkit_task.count_rings`; None if invalid.
        reason: None if valid; else `nonfinite`, a reason of `rdkit_task.name` or `perceived_task.perceive`, or one of
            the workers, e.g. `timeout`.
        stable_atoms: atoms with an allowed valence by perceived bonds; None where the table says it.
    """

    valid: bool
    smiles: str | None
    fragments: int
    rings: int | None
    reason: str | None
    stable_atoms: int | None = None

    @property
    def connected(self) -> bool:
        """Valid, and in one piece."""
        return self.valid and self.fragments == 1

    @property
    def readable_smiles(self) -> str | None:
        """The name without hydrogens of their own, for people; None if invalid."""
        return None if self.smiles is None else without_hydrogens(self.smiles)

    @classmethod
    def invalid(cls, reason: str) -> RdkitRecord:
        """The record of a molecule that is not valid."""
        return cls(False, None, 0, None, reason)


class MoleculeChecker(Closing):
    """Asks RDKit in workers; close it, or use it in a `with`.

    Args:
        workers: of the run, or a number of processes; one per core that this process may use if None.
        timeout: seconds per molecule.
        profile: where bonds come from, see above.
    """

    def __init__(self, workers: Workers | int | None = 1, timeout: float = 10.0, profile: str = PROTOCOL) -> None:
        self._profile = profile
        self._executor = as_workers(workers).executor(PERCEIVING if profile == PERCEIVED else TASK, timeout)

    def check(self, structures: Structures) -> list[RdkitRecord]:
        """One record per molecule, in order; never raises for a bad geometry."""
        finite = structures.finite.tolist()
        molecules: Sequence[object] = (
            split(structures)
            if self._profile == PERCEIVED
            else bonded_molecules(structures, single=self._profile == SINGLE_BONDS)
        )
        outcomes = iter(
            self._executor.map([molecule for molecule, good in zip(molecules, finite, strict=True) if good])
        )
        return [as_record(next(outcomes)) if good else RdkitRecord.invalid(NONFINITE) for good in finite]

    def close(self) -> None:
        """End the workers."""
        self._executor.close()


def as_record(outcome: Outcome) -> RdkitRecord:
    """The record of one outcome of `rdkit_task.name` or `perceived_task.perceive`."""
    if outcome.reason is not None:
        return RdkitRecord.invalid(outcome.reason)
    smiles, fragments, rings, *stable_atoms = outcome.value
    return RdkitRecord(True, smiles, fragments, rings, None, *stable_atoms)


def bonded_molecules(structures: Structures, single: bool = False) -> list[BondedMolecule]:
    """Atoms and bonds of each molecule by the distance table; atoms are numbered without padding.

    Args:
        structures: B molecules.
        single: take each bond for a single one.
    """
    lots = torch.arange(len(structures), device=structures.numbers.device).split(BONDED_AT_ONCE)
    return [bonded for rows in lots for bonded in _bonded(structures[rows], single)]


def _bonded(structures: Structures, single: bool) -> list[BondedMolecule]:
    """What `bonded_molecules` makes of a few."""
    orders = bond_orders(structures.numbers * structures.mask, structures.positions)
    if single:
        orders = orders.clamp(max=1)
    place = (structures.mask.cumsum(1) - 1).cpu()
    molecule, first, second = (axis.cpu() for axis in orders.triu(1).nonzero(as_tuple=True))
    found = torch.stack([place[molecule, first], place[molecule, second], orders.cpu()[molecule, first, second]], dim=1)
    bonds = found.split(torch.bincount(molecule, minlength=len(structures)).tolist())
    numbers = structures.numbers.cpu()[structures.mask.cpu()].split(structures.sizes.tolist())
    return [
        BondedMolecule(atoms.tolist(), [(i, j, order) for i, j, order in rows.tolist()])
        for atoms, rows in zip(numbers, bonds, strict=True)
    ]
