import dataclasses

import ase.io
import numpy as np
import pytest
import torch
from rdkit import Chem

from atomrl.chemistry.rdkit import RdkitRecord
from atomrl.core.records import Structures
from atomrl.export.molecules import Annotated, write_extxyz, write_sdf
from atomrl.force_fields.base import Evaluation
from atomrl.structures.molecules import split
from atomrl.util.errors import UserError


@pytest.fixture
def samples(qm9_test, records_of):
    """Twenty molecules, the last two of them broken: too many bonds, not finite."""
    positions = qm9_test.positions[:20].clone()
    positions[18] *= 0.6
    positions[19, 0, 0] = torch.nan
    structures = Structures(qm9_test.numbers[:20], positions, qm9_test.mask[:20])
    records = [*records_of(structures[:19]), RdkitRecord.invalid("nonfinite")]
    results = [Evaluation(-5.0, np.full((len(z), 3), 0.5), None) for z, _ in split(structures)]
    results[18:] = [Evaluation.failed(len(result.forces), "overlap") for result in results[18:]]
    return Annotated(structures, [f"g{row}" for row in range(20)], records, results)


def test_sdf(samples, tmp_path):
    assert write_sdf(tmp_path / "out" / "molecules.sdf", samples) == 19
    read = list(Chem.SDMolSupplier(str(tmp_path / "out" / "molecules.sdf"), removeHs=False, sanitize=False))
    assert [mol.GetProp("_Name") for mol in read] == [f"g{row}" for row in range(19)]
    first = read[0]
    assert first.GetProp("energy_ev") == "-5.0"
    assert float(first.GetProp("rms_force_ev_per_angstrom")) == pytest.approx(np.sqrt(0.75))
    assert first.GetProp("stable") == "True"
    real = samples.structures.mask[0]
    assert np.allclose(first.GetConformer().GetPositions(), samples.structures.positions[0][real], atol=1e-4)
    assert read[18].GetNumBonds() == 0
    assert read[18].GetProp("force_field_reason") == "overlap"
    for mol, record in zip(read, samples.records, strict=False):
        if record.valid:
            Chem.SanitizeMol(mol)
            assert Chem.MolToSmiles(mol, isomericSmiles=False) == mol.GetProp("smiles_explicit_h") == record.smiles
            assert Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False) == mol.GetProp("smiles")
        assert mol.HasProp("smiles") == mol.HasProp("smiles_explicit_h") == record.valid


def test_extxyz(samples, tmp_path):
    write_extxyz(tmp_path / "molecules.extxyz", samples)
    read = ase.io.read(tmp_path / "molecules.extxyz", index=":")
    assert [atoms.info["sample_id"] for atoms in read] == samples.ids
    assert read[0].get_potential_energy() == -5.0
    assert np.allclose(read[0].get_forces(), 0.5)
    assert read[18].calc is None
    assert read[19].info["rdkit_reason"] == "nonfinite"
    assert np.isnan(read[19].positions[0, 0])
    assert (read[1].numbers == samples.structures.numbers[1][samples.structures.mask[1]].numpy()).all()


def test_extxyz_gives_back_what_was_written(samples, tmp_path):
    """Ids that look like numbers, and SMILES with backslashes."""
    smiles = r"C/C=C\C"
    records = [dataclasses.replace(record, smiles=smiles) for record in samples.records]
    ids = [f"{row:05d}" for row in range(20)]
    write_extxyz(tmp_path / "a.extxyz", Annotated(samples.structures, ids, records))
    read = [atoms.info for atoms in ase.io.read(tmp_path / "a.extxyz", index=":")]
    assert [info["sample_id"] for info in read] == ids
    assert {info["smiles"] for info in read} == {smiles}


def test_without_a_force_field(samples, tmp_path):
    write_extxyz(tmp_path / "a.extxyz", Annotated(samples.structures, samples.ids, samples.records))
    assert all(atoms.calc is None for atoms in ase.io.read(tmp_path / "a.extxyz", index=":"))


def test_nothing_half_written(samples, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*file/molecules\.sdf: "):
        write_sdf(tmp_path / "file" / "molecules.sdf", samples)
    write_sdf(tmp_path / "molecules.sdf", samples)
    write_sdf(tmp_path / "molecules.sdf", samples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "molecules.sdf"]
    with pytest.raises(UserError, match=r"lengths \[20, 20, 19, 20\]"):
        write_extxyz(
            tmp_path / "b.extxyz", Annotated(samples.structures, samples.ids, samples.records[1:], samples.results)
        )
