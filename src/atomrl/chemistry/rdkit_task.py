"""What a worker process does with one molecule: build it in RDKit from given bonds, sanitise it, name it.

Profile `edm-2022` (Hoogeboom et al. 2022): atoms and bonds as given, hydrogens that are missing from a valence left
for RDKit to imply; the molecule is valid if it can be sanitised as a whole; its name is the canonical SMILES of its
largest fragment, with the hydrogens that the model placed written out. This module must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from atomrl.workers.failure import Failure

BOND_TYPES = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}


class BondedMolecule(NamedTuple):
    """Atoms and bonds in plain Python, cheap to send to a worker.

    Attributes:
        numbers: atomic number of each atom.
        bonds: (atom, atom, order) of each bond, order in 1..3.
    """

    numbers: list[int]
    bonds: list[tuple[int, int, int]]


class Named(NamedTuple):
    """A valid molecule: canonical SMILES of its largest fragment, how many fragments it has, and how many rings."""

    smiles: str
    fragments: int
    rings: int


def name(molecule: BondedMolecule) -> Named:
    """Sanitise a molecule and name it.

    Raises:
        Failure: it is not valid; the reason is `no_atoms`, `valence` (an atom has more bonds than RDKit allows),
            or `sanitize` (anything else).
    """
    with BlockLogs():
        mol = sanitised(molecule)
        try:
            fragments = Chem.GetMolFrags(mol, asMols=True)
        except Chem.MolSanitizeException as error:
            raise Failure("sanitize") from error
        return Named(largest(fragments), len(fragments), count_rings(mol))


def sanitised(molecule: BondedMolecule) -> Chem.Mol:
    """The molecule in RDKit, all atoms as given.

    Raises:
        Failure: as of `name`.
    """
    if not molecule.numbers:
        raise Failure("no_atoms")
    mol = build(molecule)
    try:
        Chem.SanitizeMol(mol)
    except Chem.AtomValenceException as error:
        raise Failure("valence") from error
    except Chem.MolSanitizeException as error:
        raise Failure("sanitize") from error
    return mol


def rename(smiles: str) -> str:
    """The name that `name` gives the molecule of a SMILES: of its largest fragment, with all hydrogens written out.

    Raises:
        Failure: RDKit cannot read it.
    """
    with BlockLogs():
        return largest(Chem.GetMolFrags(_with_hydrogens(smiles), asMols=True))


def rename_single(smiles: str) -> str:
    """The name that `name` gives the molecule of a SMILES if all its bonds are taken for single ones.

    Raises:
        Failure: RDKit cannot read it.
    """
    with BlockLogs():
        mol = _with_hydrogens(smiles)
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return name(BondedMolecule(numbers, [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), 1) for b in mol.GetBonds()])).smiles


def without_hydrogens(smiles: str) -> str:
    """A name as people write it: the canonical SMILES without hydrogens of their own, `CCO` of `[H]OC([H])([H])...`.

    A name that RDKit does not read back stays as it is.
    """
    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    return smiles if mol is None else str(Chem.MolToSmiles(mol))


def _with_hydrogens(smiles: str) -> Chem.Mol:
    """The molecule of a SMILES with all its hydrogens.

    It has no stereochemistry, no isotopes and no numbers of a reaction's atoms: no name here has them.
    """
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise Failure("smiles")
    Chem.RemoveStereochemistry(mol)
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    return Chem.AddHs(mol)


def largest(fragments: Sequence[Chem.Mol]) -> str:
    """Canonical SMILES of the largest fragment."""
    return str(Chem.MolToSmiles(max(fragments, key=lambda fragment: int(fragment.GetNumAtoms()))))


def count_rings(mol: Chem.Mol) -> int:
    """Rings of a molecule, all fragments together: the size of its smallest set of smallest rings (SSSR).

    RDKit's ring information of a sanitised molecule holds the symmetrised set, which has six rings of cubane, not five;
    this replaces it.
    """
    return len(Chem.GetSSSR(mol))


def place(mol: Chem.Mol, positions: NDArray[np.float64]) -> None:
    """Give a molecule its only conformer: positions in Å, (N, 3)."""
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    mol.AddConformer(conformer, assignId=True)


def build(molecule: BondedMolecule) -> Chem.RWMol:
    """The molecule in RDKit, not sanitised."""
    mol = Chem.RWMol()
    for number in molecule.numbers:
        mol.AddAtom(Chem.Atom(number))
    for first, second, order in molecule.bonds:
        mol.AddBond(first, second, BOND_TYPES[order])
    return mol
