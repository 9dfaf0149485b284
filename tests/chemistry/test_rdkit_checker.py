import subprocess
import sys

import pytest
import torch
from rdkit import Chem

from atomrl.chemistry import rdkit
from atomrl.chemistry.rdkit import MoleculeChecker, RdkitRecord, as_record, bonded_molecules
from atomrl.chemistry.rdkit_task import BondedMolecule, name, rename, without_hydrogens
from atomrl.core.records import Structures
from atomrl.workers.executor import Outcome
from atomrl.workers.failure import Failure


@pytest.fixture(scope="module")
def checker():
    with MoleculeChecker(workers=1, timeout=30) as pool:
        yield pool


def test_worker_side_imports_no_torch():
    code = "import sys, atomrl.chemistry.rdkit_task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_molecules(checker, qm9_test):
    records = checker.check(qm9_test)
    valid = [record for record in records if record.valid]
    assert 0.94 < len(valid) / len(records) < 1
    assert {record.reason for record in records if not record.valid} == {"valence"}
    assert all(record.connected for record in valid)
    assert len({record.smiles for record in valid}) == len(valid)


def test_same_as_without_a_pool(checker, qm9_test, records_of):
    assert checker.check(qm9_test[:40]) == records_of(qm9_test[:40])


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("[H]OC([H])([H])C([H])([H])[H]", "CCO"),
        ("[H]OC([H])C([H])([H])[H]", "CCO"),  # RDKit implies the one that is missing
        ("[H]c1c([H])c([H])c([H])c([H])c1[H]", "c1ccccc1"),
        ("[H][H]", "[H][H]"),
        ("[H]C([H])([H])([H])[H]", "[H]C([H])([H])([H])[H]"),  # no molecule that RDKit reads
    ],
)
def test_a_name_without_hydrogens_of_their_own(name: str, readable: str) -> None:
    assert without_hydrogens(name) == readable
    assert RdkitRecord(True, name, 1, 0, None).readable_smiles == readable
    assert RdkitRecord.invalid("valence").readable_smiles is None


@pytest.mark.parametrize("smiles", ["[2H]C([2H])O", "[13CH3]O", "[CH3:1][OH:2]", "[2H]OC"])
def test_a_known_molecule_has_no_isotopes_and_no_numbers(smiles: str) -> None:
    """No sample has them, so that it would match none."""
    assert rename(smiles) == rename("CO")


def test_bad_geometries(checker):
    numbers = torch.tensor([[6, 8, 1, 1], [6, 6, 0, 0], [0, 0, 0, 0], [6, 1, 0, 0], [8, 8, 8, 8]])
    positions = torch.zeros(5, 4, 3)
    positions[0] = torch.tensor([[0, 0, 0], [1.21, 0, 0], [-0.6, 0.93, 0], [-0.6, -0.93, 0]])
    positions[1, 1, 0] = 30.0
    positions[3, 1, 0] = float("nan")
    records = checker.check(Structures(numbers, positions, numbers > 0))
    assert records[0] == RdkitRecord(True, "[H]C([H])=O", 1, 0, None)
    assert records[1] == RdkitRecord(True, "C", 2, 0, None)  # RDKit implies the hydrogens: valid, not connected
    assert not records[1].connected
    assert [record.reason for record in records[2:]] == ["no_atoms", "nonfinite", "valence"]
    assert all(record.fragments == 0 and record.smiles is record.rings is None for record in records[2:])


def test_largest_fragment_names_the_molecule():
    assert name(BondedMolecule([6, 6, 8, 8], [(0, 1, 1), (1, 2, 2)])) == ("CC=O", 2, 0)


CUBANE = "C12C3C4C1C5C2C3C45"


@pytest.mark.parametrize(
    ("smiles", "rings"),
    [
        ("C", 0),
        ("c1ccccc1", 1),
        ("C1CC1.C1CC1", 2),  # in two pieces, of which the name has one
        ("c1ccc2ccccc2c1", 2),
        ("C1C2CC3CC1CC(C2)C3", 3),  # adamantane, whose fourth face is the sum of the others
        (CUBANE, 5),
    ],
)
def test_rings_of_the_whole_molecule(smiles: str, rings: int) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondType())) for bond in mol.GetBonds()]
    found = name(BondedMolecule([atom.GetAtomicNum() for atom in mol.GetAtoms()], bonds))
    assert found.rings == rings
    assert found.smiles == rename(smiles)  # to count the rings changes no name


def test_too_many_bonds():
    with pytest.raises(Failure, match="valence"):
        name(BondedMolecule([6, 8], [(0, 1, 3)]))
    with pytest.raises(Failure, match="valence"):
        name(BondedMolecule([6, 1, 1, 1, 1, 1], [(0, k, 1) for k in range(1, 6)]))


def test_time_out_is_invalid():
    assert as_record(Outcome(None, "timeout")) == RdkitRecord.invalid("timeout")


def test_bonds_skip_padding_in_the_middle():
    numbers = torch.tensor([[8, 0, 1, 1]])
    positions = torch.tensor([[[0, 0, 0], [0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]])
    (water,) = bonded_molecules(Structures(numbers, positions, numbers > 0))
    assert water == ([8, 1, 1], [(0, 1, 1), (0, 2, 1)])


def test_a_molecule_that_takes_too_long(qm9_test, tmp_path, monkeypatch):
    (tmp_path / "sleeping_task.py").write_text("import time\ndef sleep(item):\n    time.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rdkit, "TASK", "sleeping_task:sleep")
    with MoleculeChecker(workers=1, timeout=0.2) as checker:
        assert checker.check(qm9_test[:1]) == [RdkitRecord.invalid("timeout")]
