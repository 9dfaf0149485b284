import numpy as np
import pytest

from atomrl.chemistry.rdkit import PROTOCOL
from atomrl.chemistry.training_smiles import TrainingSmiles, hash_smiles
from atomrl.data.qm9 import size_histogram
from atomrl.data.qm9_assets import build_split, check, describe, training_smiles
from atomrl.util.errors import UserError

C_DIGEST = "659a93f4dc463c0b"
"""BLAKE2b of the letter C in 8 bytes: files made on one machine must read the same on another."""


def test_shipped_set():
    shipped = TrainingSmiles.load()
    assert shipped.protocol == PROTOCOL
    assert shipped.molecules == 100_000
    assert 97_000 < len(shipped) < 98_000
    assert (np.diff(shipped.hashes) > 0).all()
    assert shipped.contains(["[H]C([H])([H])[H]", "not a molecule", ""]).tolist() == [True, False, False]


def test_test_molecules_are_novel(qm9_set):
    """QM9 holds hardly any molecule twice, so the test split is novel: by hash as by string."""
    smiles = [record.smiles for record in check(qm9_set).records if record.valid]
    assert TrainingSmiles.load().contains(smiles).mean() < 0.05


def test_round_trip(tmp_path):
    made = TrainingSmiles.of(["C", "CC", "C"], 4, "edm-2022", "x")
    made.save(tmp_path / "set.safetensors")
    loaded = TrainingSmiles.load(tmp_path / "set.safetensors")
    assert (loaded.molecules, loaded.protocol, loaded.rdkit_version, len(loaded)) == (4, "edm-2022", "x", 2)
    assert loaded.contains(["CC", "CCC", "C"]).tolist() == [True, False, True]
    assert TrainingSmiles.of([], 0, "edm-2022", "x").contains(["C"]).tolist() == [False]
    assert loaded.contains([]).shape == (0,)


def test_hash_is_fixed():
    assert hash_smiles(["C"]).tolist() == [int.from_bytes(bytes.fromhex(C_DIGEST), "little", signed=True)]


@pytest.mark.parametrize("content", [None, b"not safetensors at all"])
def test_bad_file(tmp_path, content):
    path = tmp_path / "set.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"set\.safetensors is not a set of training SMILES"):
        TrainingSmiles.load(path)


def test_assets_from_a_small_set(qm9_set, tmp_path):
    checked = check(qm9_set)
    smiles = training_smiles(checked)
    assert len(smiles) == sum(record.valid for record in checked.records)
    assert "300 molecules, stable 0.9" in describe("test", checked)
    assert sum(size_histogram(qm9_set).values()) == 300
    build_split(qm9_set, tmp_path / "split.safetensors")
    assert (tmp_path / "split.safetensors").stat().st_mode & 0o044
