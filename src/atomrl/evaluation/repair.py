"""Repair of generated molecules: missing hydrogens, then a few steps along the forces.

Its numbers stand beside those of the samples as they came, and never in place of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rdkit import Chem
from rdkit.rdBase import BlockLogs
from torch import Tensor

from atomrl.chemistry.rdkit import bonded_molecules
from atomrl.chemistry.rdkit_task import BondedMolecule, place, sanitised
from atomrl.core.protocols import Result
from atomrl.core.records import Structures
from atomrl.measures.forces import stack_results
from atomrl.structures.molecules import Geometry, split
from atomrl.structures.padding import join
from atomrl.workers.failure import Failure

LONGEST_STEP = 0.1
"""Å that an atom may move in one step, so that an overlap does not throw its atoms away."""


@dataclass(frozen=True)
class RepairPlan:
    """What is repaired, and how.

    Attributes:
        invalid: molecules that RDKit does not take, and
        unstable: those with an atom of another valence than the bond table allows.
        add_hydrogens: first give atoms the hydrogens that their valence lacks.
        steps: along the forces.
        alpha: Å² / eV: a step moves each atom by alpha times its force, at most `LONGEST_STEP`.
    """

    invalid: bool = False
    unstable: bool = False
    add_hydrogens: bool = False
    steps: int = 3
    alpha: float = 0.01

    @property
    def used(self) -> bool:
        """Whether any molecule may be repaired."""
        return self.invalid or self.unstable

    def chosen(self, valid: Tensor, stable: Tensor) -> Tensor:
        """Rows of the molecules to repair, of those that are valid (B,) or not and stable (B,) or not."""
        broken = (~valid & self.invalid) | (~stable & self.unstable)
        return broken.nonzero().squeeze(1)


def repair(
    structures: Structures, rows: Tensor, plan: RepairPlan, evaluate: Callable[[Structures], Sequence[Result]]
) -> Structures:
    """The samples with some of them repaired, in their order.

    Args:
        structures: B molecules on the CPU.
        rows: of those to repair, (R,) int64.
        plan: how.
        evaluate: gives energies in eV and forces in eV/Å; a molecule without a result stays where it is.
    """
    if not len(rows):
        return structures
    parts = with_hydrogens(structures[rows]) if plan.add_hydrogens else structures[rows]
    for _ in range(plan.steps):
        forces = stack_results(evaluate(parts), parts).forces.nan_to_num(nan=0.0).to(parts.positions)
        step = plan.alpha * forces
        length = step.norm(dim=2, keepdim=True).clamp(min=1e-12)
        parts = replace(parts, positions=parts.positions + step * (LONGEST_STEP / length).clamp(max=1.0))
    others = torch.ones(len(structures), dtype=torch.bool)
    others[rows] = False
    joined = Structures.concatenate([structures[others.nonzero().squeeze(1)], parts])
    order = torch.empty(len(structures), dtype=torch.int64)
    order[torch.cat([others.nonzero().squeeze(1), rows])] = torch.arange(len(structures))
    return joined[order]


def with_hydrogens(structures: Structures) -> Structures:
    """Each molecule with the hydrogens that RDKit implies by its bonds in the distance table, at RDKit's places.

    One that RDKit cannot take, because an atom has too many bonds, stays as it is.
    """
    made = [
        _with_hydrogens(bonded, geometry)
        for bonded, geometry in zip(bonded_molecules(structures), split(structures), strict=True)
    ]
    return join(made, structures.positions.dtype)


def _with_hydrogens(bonded: BondedMolecule, geometry: Geometry) -> Geometry:
    """One molecule, completed."""
    if not np.isfinite(geometry.positions).all():
        return geometry
    try:
        with BlockLogs():
            mol = sanitised(bonded)
            place(mol, geometry.positions)
            complete = Chem.AddHs(mol, addCoords=True)
    except Failure:
        return geometry
    numbers = np.array([atom.GetAtomicNum() for atom in complete.GetAtoms()])
    return Geometry(numbers, complete.GetConformer().GetPositions())
