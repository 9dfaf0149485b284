"""Molecules as objects of RDKit, in this process, for code of the user's."""

from __future__ import annotations

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from atomrl.chemistry.rdkit import NONFINITE, bonded_molecules
from atomrl.chemistry.rdkit_task import place, sanitised
from atomrl.core.records import Structures
from atomrl.structures.molecules import split
from atomrl.workers.failure import Failure


def to_rdkit(structures: Structures) -> tuple[list[Chem.Mol], list[str | None]]:
    """The valid molecules, and for each sample why it is none, or None.

    A molecule is sanitised as a whole, with bonds by the distance table, as for `chemistry.rdkit.MoleculeChecker`. It
    has all atoms that were sampled, hydrogens too, in their order, and one conformer, Å. Reasons are `nonfinite` and
    those of `rdkit_task.sanitised`.
    """
    molecules: list[Chem.Mol] = []
    reasons: list[str | None] = []
    samples = zip(structures.finite.tolist(), bonded_molecules(structures), split(structures), strict=True)
    with BlockLogs():
        for good, bonded, geometry in samples:
            try:
                if not good:
                    raise Failure(NONFINITE)
                mol = sanitised(bonded)
                place(mol, geometry.positions)
                molecules.append(mol)
                reasons.append(None)
            except Failure as failure:
                reasons.append(failure.reason)
    return molecules, reasons
