"""The log's numbers about an iteration's molecules, against plain counting."""

import math

import pytest
import torch

from atomrl.chemistry.bonds import valence
from atomrl.chemistry.rdkit import RdkitRecord
from atomrl.core.records import Structures
from atomrl.evaluation import monitor
from atomrl.evaluation.monitor import MoleculeMonitor


class Checker:
    """RDKit without its worker process."""

    def __init__(self, check) -> None:
        self.check = check


def watch(monkeypatch: pytest.MonkeyPatch, check) -> MoleculeMonitor:
    monkeypatch.setattr(monitor, "MoleculeChecker", lambda workers: Checker(check))
    return MoleculeMonitor()


@pytest.fixture(scope="module")
def shaken(qm9_test) -> Structures:
    """Molecules of which some have lost bonds."""
    part = qm9_test[:40]
    noise = torch.randn(part.positions.shape, generator=torch.Generator().manual_seed(0)).to(part.positions)
    return Structures(part.numbers, part.positions + 0.03 * noise, part.mask)


def test_numbers_of_the_log(monkeypatch, shaken, records_of):
    records = records_of(shaken)
    valid = [record.valid for record in records]
    names = [record.smiles for record in records if record.valid]
    verdict = valence(shaken.numbers, shaken.positions, shaken.mask)
    stable = [bool(one) for one, ok in zip(verdict.molecule_stable, valid, strict=True) if ok]
    assert 0 < sum(stable) < len(stable) < 40
    found = watch(monkeypatch, records_of).measure(shaken)
    assert found["molecule_stability"] == pytest.approx(int(verdict.molecule_stable.sum()) / 40)
    assert found["atom_stability"] == pytest.approx(int(verdict.stable_atoms.sum()) / int(shaken.mask.sum()))
    assert found["rdkit_validity"] == sum(valid) / 40
    assert found["rdkit_uniqueness"] == len(set(names)) / len(names)
    assert found["validity_x_uniqueness"] == len(set(names)) / 40
    assert found["stability_given_rdkit_valid"] == pytest.approx(sum(stable) / len(stable))
    assert found["stability_given_rdkit_valid"] != pytest.approx(found["molecule_stability"])
    assert sum(share for name, share in found.items() if name.startswith("share_")) == pytest.approx(1)


def test_no_valid_molecule(monkeypatch, shaken):
    found = watch(monkeypatch, lambda part: [RdkitRecord.invalid("valence")] * len(part)).measure(shaken)
    assert math.isnan(found["stability_given_rdkit_valid"])
    assert found["rdkit_validity"] == found["rdkit_uniqueness"] == found["validity_x_uniqueness"] == 0


def test_an_element_that_no_molecule_has_is_logged_too(shaken):
    """Else its share would be that of the iterations that have it, and the number would come and go."""
    elements = ("H", "B", "C", "N", "O", "F")
    all_there, none_there = (
        MoleculeMonitor(rdkit=False, elements=elements).measure(Structures(numbers, shaken.positions, shaken.mask))
        for numbers in (shaken.numbers, torch.where(shaken.mask, 1, 0))
    )
    assert all_there.keys() == none_there.keys()
    assert [none_there[f"share_{symbol}"] for symbol in elements] == [1, 0, 0, 0, 0, 0]
    assert none_there["no_bond_entry"] == 0  # of B and H, for instance


def test_without_rdkit(shaken):
    assert not any("rdkit" in name for name in MoleculeMonitor(rdkit=False).measure(shaken))
