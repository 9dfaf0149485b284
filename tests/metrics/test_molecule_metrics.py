import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from molecule_batches import from_atoms

from atomrl.chemistry.bonds import valence
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.core.records import Structures
from atomrl.evaluation.molecules import METRICS, by_second_judge, evaluate_molecules
from atomrl.evaluation.sample_columns import molecule_columns
from atomrl.force_fields.base import Evaluation
from atomrl.structures.molecules import split
from atomrl.util.errors import UserError

REFERENCES = {"H": -10.0, "C": -50.0, "N": -70.0, "O": -100.0, "F": -120.0}
ATOMS = {1: -10.0, 6: -50.0, 7: -70.0, 8: -100.0, 9: -120.0}


def forced(structures, failed=()):
    """Results: force 3 eV/Å along each axis on each atom, 2 eV below the isolated atoms per atom."""
    return [
        Evaluation.failed(len(z), "scf")
        if row in failed
        else Evaluation(sum(ATOMS[int(k)] for k in z) - 2.0 * len(z), np.full((len(z), 3), 3.0), None)
        for row, (z, _) in enumerate(split(structures))
    ]


@pytest.fixture(scope="module")
def training():
    return TrainingSmiles.load()


@pytest.fixture(scope="module")
def judge(training):
    def run(structures, records, results, **options):
        defaults = {"references": REFERENCES, "training": training, "evaluator": "test", "resamples": 200}
        return evaluate_molecules(structures, records, results, **(defaults | options))

    return run


@pytest.fixture(scope="module")
def found(judge, qm9_test, records_of):
    return judge(qm9_test, records_of(qm9_test), forced(qm9_test, failed={0, 1, 2}))


def test_agrees_with_plain_counting(found, qm9_test, records_of):
    records, summary = records_of(qm9_test), found.summary
    hard = valence(qm9_test.numbers, qm9_test.positions, qm9_test.mask)
    valid = [record.smiles for record in records if record.valid]
    assert summary["molecule_stability"].value == pytest.approx(float(hard.molecule_stable.double().mean()))
    assert summary["atom_stability"].value == pytest.approx(int(hard.stable_atoms.sum()) / int(qm9_test.mask.sum()))
    assert summary["atom_stability"].denominator == int(qm9_test.mask.sum())
    assert summary["validity"].value == len(valid) / 300
    assert summary["uniqueness"].value == len(set(valid)) / len(valid)
    assert summary["uniqueness"].denominator == len(valid)
    assert summary["validity_x_uniqueness"].value == len(set(valid)) / 300
    assert summary["connected_validity"].value == sum(record.connected for record in records) / 300
    assert summary["novelty"].denominator == len(set(valid))
    product = summary["novelty"].value * summary["validity_x_uniqueness"].value
    assert summary["valid_unique_novel"].value == pytest.approx(product)
    assert summary["valid_unique_novel"].denominator == 300
    assert summary["novelty"].value > 0.95
    assert tuple(summary) == tuple(name for name in METRICS if name in summary)
    assert set(summary) == set(METRICS) - {"no_bond_entry"}  # QM9's elements lack none
    for estimate in summary.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_without_a_known_set_nobody_knows_what_is_novel(judge, qm9_test, records_of):
    """No row of the table, and no column of the samples, in place of one that says that none is."""
    few = qm9_test[:3]
    found = judge(few, records_of(few), forced(few), training=None)
    assert not {"novelty", "valid_unique_novel"} & found.summary.keys()
    assert "novel" not in molecule_columns(found.samples, ["0", "1", "2"])


def test_physics(found):
    summary = found.summary
    assert summary["rms_force_median"].value == pytest.approx(math.sqrt(27))
    assert summary["rms_force_median"].denominator == 300
    assert summary["rms_force_mean"].value == pytest.approx(math.sqrt(27))
    assert summary["rms_force_mean"].denominator == 297
    assert summary["force_field_failures"].value == 3 / 300
    assert summary["energy_per_atom_mean"].value == pytest.approx(-2)
    assert summary["energy_per_atom_mean"].denominator == 297
    assert summary["energy_per_atom_median"].value == pytest.approx(-2)
    assert summary["energy_per_atom_median"].denominator == 300
    assert np.isposinf(found.samples.rms_forces[:3]).all()
    assert np.isposinf(found.samples.energies_per_atom[:3]).all()
    assert found.failures["force_field"] == {"scf": 3}


def test_histograms(found, qm9_test):
    assert sum(found.sizes.values()) == 300
    assert sum(size * count for size, count in found.sizes.items()) == sum(found.elements.values())
    assert list(found.elements)[:2] == ["H", "C"]
    assert found.elements["O"] == int((qm9_test.numbers == 8).sum())
    assert sum(found.failures["rdkit"].values()) == 300 - int(found.samples.valid.sum())


def test_elements_sizes_and_rings_of_known_molecules(judge, records_of):
    """Benzene, methane, cyclopropane, and four atoms of oxygen at one place, which are no molecule."""
    pile = Atoms("O4", np.zeros((4, 3)))
    samples = from_atoms([molecule("C6H6"), molecule("CH4"), molecule("C3H6_D3h"), pile])
    found = judge(samples, records_of(samples), None)
    assert found.samples.valid.tolist() == [True, True, True, False]
    assert found.samples.heavy_atoms.tolist() == [6, 1, 3, 4]
    np.testing.assert_array_equal(found.samples.rings, [1, 0, 1, np.nan])
    for name, value, denominator in (
        ("hydrogen_share", 16 / 30, 30),
        ("heavy_atoms_mean", 10 / 3, 3),
        ("without_ring", 1 / 3, 3),
    ):
        estimate = found.summary[name]
        assert (estimate.value, estimate.denominator) == (pytest.approx(value), denominator)
        assert estimate.low < estimate.value < estimate.high
        assert found.definitions[name].better == "neither"


def test_duplicates_and_known_molecules(judge, training, qm9_test, records_of):
    twice = Structures.concatenate([qm9_test[:50], qm9_test[:50]])
    records = records_of(twice)
    known = TrainingSmiles.of([record.smiles for record in records[:10] if record.valid], 10, "edm-2022", "x")
    found = judge(twice, records, None, training=known)
    distinct = len({record.smiles for record in records if record.valid})
    assert found.summary["uniqueness"].value == pytest.approx(0.5)
    assert found.summary["validity_x_uniqueness"].value == distinct / 100
    assert found.summary["novelty"].value == pytest.approx(1 - len(known) / distinct)
    assert "rms_force_median" not in found.summary
    assert found.evaluator == "skipped"


def test_half_failed_is_an_infinite_median(judge, qm9_test, records_of):
    part = qm9_test[:10]
    found = judge(part, records_of(part), forced(part, failed=range(6))).summary
    assert found["rms_force_median"].value == math.inf
    assert found["energy_per_atom_median"].value == math.inf
    assert found["rms_force_mean"].denominator == found["energy_per_atom_mean"].denominator == 4


def test_an_element_without_a_reference_has_no_energy_per_atom(judge, qm9_test, records_of):
    part = qm9_test[:10]
    references = {symbol: energy for symbol, energy in REFERENCES.items() if symbol != "H"}
    found = judge(part, records_of(part), forced(part), references=references).summary
    assert found["energy_per_atom_median"].value == math.inf
    assert math.isnan(found["energy_per_atom_mean"].value)
    assert found["force_field_failures"].value == 0


def test_everything_failed(judge):
    numbers = torch.tensor([[6, 1], [6, 1]])
    broken = Structures(numbers, torch.full((2, 2, 3), torch.nan), numbers > 0)
    from atomrl.chemistry.rdkit import RdkitRecord

    found = judge(broken, [RdkitRecord.invalid("nonfinite")] * 2, forced(broken, failed={0, 1}))
    assert found.summary["validity"].value == 0
    for name in ("uniqueness", "heavy_atoms_mean", "without_ring"):
        assert math.isnan(found.summary[name].value)
    assert found.summary["hydrogen_share"].value == 0.5
    assert math.isnan(found.summary["rms_force_mean"].value)
    assert found.failures == {"force_field": {"scf": 2}, "rdkit": {"nonfinite": 2}}


def test_refusals(judge, training, qm9_test, records_of):
    records = records_of(qm9_test[:3])
    with pytest.raises(UserError, match="one result per sample"):
        judge(qm9_test[:3], records[:2], None)
    with pytest.raises(UserError, match="cannot evaluate 0 samples"):
        judge(qm9_test[:0], [], None)
    other = TrainingSmiles(training.hashes, 1, "another", "x")
    with pytest.raises(UserError, match="follow protocol 'another'"):
        judge(qm9_test[:3], records, None, training=other)


def test_a_second_judge_leaves_out_what_it_does_not_know(found, qm9_test):
    """And nothing else: another failure counts as infinite."""
    results = [
        Evaluation.failed(len(z), "element")
        if 9 in z
        else Evaluation.failed(len(z), "overlap")
        if row < 20
        else Evaluation(0.0, np.full((len(z), 3), float(row)), None)
        for row, (z, _) in enumerate(split(qm9_test))
    ]
    known = [row for row, (z, _) in enumerate(split(qm9_test)) if 9 not in z]
    assert 0 < len(known) < len(results)  # the set has molecules of fluorine
    again = by_second_judge(found, qm9_test, results, "judge", resamples=200)
    forces = [math.inf if row < 20 else row * 3**0.5 for row in known]
    assert again.evaluator == "judge"
    assert again.summary["known_elements"].value == len(known) / len(results)
    assert again.summary["rms_force_median"].value == pytest.approx(np.median(forces))
    assert again.summary["rms_force_median"].denominator == len(known)
    assert again.summary["force_field_failures"].value == sum(map(math.isinf, forces)) / len(known)
    assert again.failures["second_judge"]["element"] == len(results) - len(known)
    nothing = [Evaluation.failed(len(z), "element") for z, _ in split(qm9_test)]
    assert set(by_second_judge(found, qm9_test, nothing, "judge").summary) == {"known_elements"}
