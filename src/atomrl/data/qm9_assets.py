"""Builds the two files about QM9 that ship: the ids of the split, and the SMILES of the training molecules.

`python -m atomrl.data.qm9_assets [FOLDER]`, a few minutes on one core; needs the extra `data`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import rdBase
from safetensors.numpy import save
from tqdm import tqdm

import atomrl
from atomrl.chemistry.bonds import valence
from atomrl.chemistry.rdkit import PROTOCOL, RdkitRecord, bonded_molecules
from atomrl.chemistry.rdkit_task import name
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.data.batches import padded_batches
from atomrl.data.qm9 import SPLIT_SEED, MoleculeSet, load_qm9, split
from atomrl.util.files import write_whole
from atomrl.workers.failure import Failure

BATCH = 2048
SMILES_FILE = "qm9_train_smiles.safetensors"
SPLIT_FILE = "qm9_split.safetensors"


@dataclass(frozen=True)
class Checked:
    """RDKit records of molecules, and their stability by the bond table.

    Attributes:
        records: one per molecule, in no particular order.
        stable: stable molecules.
        stable_atoms: stable atoms.
        atoms: all atoms.
    """

    records: list[RdkitRecord]
    stable: int
    stable_atoms: int
    atoms: int


def build_split(molecules: MoleculeSet, path: Path) -> None:
    """Write the ids of the validation and test molecules, sorted int32; all others are for training."""
    parts = split(molecules)
    arrays = {part: np.sort(parts[part].ids).astype(np.int32) for part in ("validation", "test")}
    about = {"source": "qm9pack 1.0.3, column Index", "seed": str(SPLIT_SEED), "train": str(len(parts["train"]))}
    write_whole(path, save(arrays, metadata=about))


def check(molecules: MoleculeSet) -> Checked:
    """Records and stability of a molecule set, in this process: its geometries are known to be harmless."""
    records: list[RdkitRecord] = []
    stable = stable_atoms = atoms = 0
    with tqdm(total=len(molecules), unit="mol", disable=None) as bar:
        for structures in padded_batches(molecules, BATCH):
            found = valence(structures.numbers, structures.positions, structures.mask)
            stable += int(found.molecule_stable.sum())
            stable_atoms += int(found.stable_atoms.sum())
            atoms += int(structures.mask.sum())
            for molecule in bonded_molecules(structures):
                try:
                    records.append(RdkitRecord(True, *name(molecule), None))
                except Failure as failure:
                    records.append(RdkitRecord.invalid(failure.reason))
            bar.update(len(structures))
    return Checked(records, stable, stable_atoms, atoms)


def training_smiles(checked: Checked) -> TrainingSmiles:
    """The set of the valid molecules' SMILES."""
    smiles = [record.smiles for record in checked.records if record.smiles is not None]
    return TrainingSmiles.of(smiles, len(checked.records), PROTOCOL, rdBase.rdkitVersion)


def describe(label: str, checked: Checked) -> str:
    """One line of numbers about a molecule set."""
    count = len(checked.records)
    valid = [record.smiles for record in checked.records if record.smiles is not None]
    connected = sum(record.connected for record in checked.records)
    reasons = dict(Counter(record.reason for record in checked.records if record.reason is not None))
    return (
        f"{label}: {count} molecules, stable {checked.stable / count:.4f}, "
        f"atoms stable {checked.stable_atoms / checked.atoms:.4f}, valid {len(valid) / count:.4f}, "
        f"valid and connected {connected / count:.4f}, unique of valid {len(set(valid)) / len(valid):.4f}; {reasons}"
    )


def main() -> None:
    """Build both files and print what the data look like under the protocol."""
    parser = argparse.ArgumentParser(description=__doc__)
    shipped = Path(atomrl.__file__).parent / "assets"
    parser.add_argument("folder", nargs="?", type=Path, default=shipped, help="where to write (default: the package)")
    parser.add_argument("--held-out", action="store_true", help="check validation and test molecules as well")
    options = parser.parse_args()
    molecules = load_qm9()
    build_split(molecules, options.folder / SPLIT_FILE)
    parts = split(molecules)
    checked = check(parts["train"])
    smiles = training_smiles(checked)
    smiles.save(options.folder / SMILES_FILE)
    lines = [f"RDKit {rdBase.rdkitVersion}, protocol {PROTOCOL}", describe("train", checked)]
    lines.append(f"{len(smiles)} SMILES in {options.folder / SMILES_FILE}")
    if options.held_out:
        lines += [describe(part, check(parts[part])) for part in ("validation", "test")]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
