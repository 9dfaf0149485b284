"""Conformers of approved drugs, as the files that a user may have.

The SMILES are typed by hand from the drugs' well-known structures; RDKit makes the conformers (ETKDG) and relaxes them
by its force field (MMFF).
"""

from functools import cache
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from rdkit import Chem
from rdkit.Chem import AllChem
from rdkit.rdBase import BlockLogs

DRUGS = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "isoniazid": "NNC(=O)c1ccncc1",
    "metformin": "CN(C)C(=N)NC(N)=N",
    "salbutamol": "CC(C)(C)NCC(O)c1ccc(O)c(CO)c1",
    "fluorouracil": "O=c1[nH]cc(F)c(=O)[nH]1",
    "lidocaine": "CCN(CC)CC(=O)Nc1c(C)cccc1C",
    "chlorambucil": "OC(=O)CCCc1ccc(cc1)N(CCCl)CCCl",
    "sulfanilamide": "Nc1ccc(cc1)S(N)(=O)=O",
    "captopril": "CC(CS)C(=O)N1CCCC1C(=O)O",
}
"""{name: SMILES}; the last two hold sulphur, chlorambucil chlorine."""

QM9_LIKE = tuple(DRUGS)[:9]
"""Those of H, C, N, O and F."""


@cache
def conformers() -> dict[str, Chem.Mol]:
    """One relaxed conformer of each, hydrogens included."""
    found = {}
    with BlockLogs():
        for name, smiles in DRUGS.items():
            mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
            assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
            AllChem.MMFFOptimizeMolecule(mol)
            mol.SetProp("_Name", name)
            found[name] = mol
    return found


def atoms_of(mol: Chem.Mol) -> Atoms:
    return Atoms([atom.GetAtomicNum() for atom in mol.GetAtoms()], mol.GetConformer().GetPositions())


def write_sdf(path: Path, names=tuple(DRUGS)) -> Path:
    with Chem.SDWriter(str(path)) as writer:
        for name in names:
            writer.write(conformers()[name])
    return path


def write_extxyz(path: Path, names=tuple(DRUGS)) -> Path:
    ase.io.write(path, [atoms_of(conformers()[name]) for name in names], format="extxyz")
    return path


def padded(names=tuple(DRUGS)) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (M, N), 0 where padded, and positions (M, N, 3)."""
    all_atoms = [atoms_of(conformers()[name]) for name in names]
    largest = max(map(len, all_atoms))
    numbers, positions = np.zeros((len(names), largest), dtype=np.int64), np.zeros((len(names), largest, 3))
    for row, atoms in enumerate(all_atoms):
        numbers[row, : len(atoms)], positions[row, : len(atoms)] = atoms.numbers, atoms.positions
    return numbers, positions


def write_npz(path: Path, names=tuple(DRUGS)) -> Path:
    numbers, positions = padded(names)
    np.savez(path, numbers=numbers, positions=positions)
    return path


def write_geom(path: Path, names=tuple(DRUGS)) -> Path:
    """GEOM-Drugs' form: rows [conformer, atomic number, x, y, z]."""
    rows = []
    for number, name in enumerate(names):
        atoms = atoms_of(conformers()[name])
        rows.append(np.column_stack([np.full(len(atoms), number), atoms.numbers, atoms.positions]))
    np.save(path, np.concatenate(rows))
    return path


WRITERS = {
    "drugs.sdf": write_sdf,
    "drugs.extxyz": write_extxyz,
    "drugs.xyz": write_extxyz,
    "drugs.npz": write_npz,
    "drugs.npy": write_geom,
}
"""{name of a file: who writes it}."""
