"""CHGNet: units, forces and stress, batches and workers, and the traps that would be reward hacks."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from chgnet.graph import CrystalGraphConverter
from chgnet.model import CHGNet
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON, TRICLINIC, rattled
from pymatgen.core import Lattice, Structure

from atomrl.core.records import Structures
from atomrl.force_fields.chgnet import CHGNetCalculator, CHGNetForceField, evaluate_crystals, load_model, model_id
from atomrl.force_fields.chgnet_graph import crystal_graph
from atomrl.structures.cells import Crystal, to_arrays
from atomrl.structures.crystals import CellBounds, from_pymatgen
from atomrl.testing import check_crystal_force_field
from atomrl.util.errors import UserError
from atomrl.workers.failure import Failure
from atomrl.workers.pool import WorkerPool

SAMPLES = [PEROVSKITE, SILICON, rattled(ROCK_SALT), CAESIUM_CHLORIDE, TRICLINIC]


@pytest.fixture(scope="module")
def reference():
    """CHGNet as its own package loads and runs it."""
    return CHGNet.load(use_device="cpu", verbose=False)


def pair(numbers, distance, box=4.0):
    return Structure(Lattice.cubic(box), numbers, [[0, 0, 0], [distance / box, 0, 0]])


def test_agrees_with_the_package(reference):
    results = CHGNetForceField(gradients=True).evaluate(from_pymatgen(SAMPLES))
    for structure, result in zip(SAMPLES, results, strict=True):
        expected = reference.predict_structure(structure, task="efs")
        assert result.energy / len(structure) == pytest.approx(float(expected["e"]), abs=1e-5)
        np.testing.assert_allclose(result.forces, expected["f"], atol=2e-4)
        np.testing.assert_allclose(result.stress, expected["s"] / 160.21766208, atol=1e-5)


def test_graph_is_the_package_s():
    converter = CrystalGraphConverter()
    for structure in SAMPLES:
        ours, theirs = crystal_graph(to_arrays(structure)), converter(structure)
        assert len(ours.atom_graph) == len(theirs.atom_graph)
        assert len(ours.undirected2directed) == len(theirs.undirected2directed)
        assert len(ours.bond_graph) == len(theirs.bond_graph)
        if len(theirs.bond_graph):
            assert torch.equal(ours.bond_graph[:, 0].bincount(), theirs.bond_graph[:, 0].bincount())


def test_forces_and_stress_are_slopes_of_the_energy():
    """In float32 an energy of -40 eV is known to a few 1e-6 eV, so the step is longer than for xTB."""
    check_crystal_force_field(
        CHGNetForceField(gradients=True), from_pymatgen([rattled(PEROVSKITE), TRICLINIC]), step=2e-3
    )


def test_formation_energy_is_that_of_experiment():
    """NaCl -2.13 eV/atom: the scale of the energies, elements included (solid Na; Cl2 as a molecule in its crystal)."""
    sodium = Structure(Lattice.cubic(4.2), ["Na", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    chlorine = Structure.from_spacegroup("Cmce", Lattice.orthorhombic(6.2, 4.4, 8.2), ["Cl"], [[0, 0.12, 0.1]])
    results = CHGNetForceField().evaluate(from_pymatgen([ROCK_SALT, sodium, chlorine]))
    salt, metal, gas = (r.energy / len(s) for r, s in zip(results, (ROCK_SALT, sodium, chlorine), strict=True))
    assert salt - (metal + gas) / 2 == pytest.approx(-2.13, abs=0.2)


def test_batches_and_padding_do_not_matter():
    structures = from_pymatgen(SAMPLES * 3)
    one, many = (CHGNetForceField(batch_size=size).evaluate(structures) for size in (1, 5))
    for first, second in zip(one, many, strict=True):
        assert first.energy == pytest.approx(second.energy, abs=1e-4)
        assert first.forces.shape == second.forces.shape
        assert np.isnan(first.forces).all()
        assert first.reason is second.reason is None


def test_traps_are_refused_and_good_ones_evaluated():
    nan_cell = from_pymatgen([SILICON])
    nan_cell = Structures(nan_cell.numbers, nan_cell.positions, nan_cell.mask, nan_cell.cell * float("nan"))
    cases = [
        (from_pymatgen([SILICON]), None),
        (from_pymatgen([pair(["Na", "Cl"], 0.001)]), "overlap"),  # CHGNet: -2.4 eV/atom and no force
        (from_pymatgen([pair(["W", "W"], 0.5)]), "overlap"),  # CHGNet: below the energy of a real bond
        (from_pymatgen([pair(["Si", "Si"], 0.0)]), "overlap"),  # CHGNet: NaN
        (
            from_pymatgen([Structure(Lattice.cubic(2.0), ["Si"] * 10, np.random.default_rng(0).random((10, 3)))]),
            "volume",
        ),
        (from_pymatgen([Structure(Lattice.cubic(7.0), ["Si"], [[0, 0, 0]])]), "isolated"),  # CHGNet: raises
        (from_pymatgen([Structure(Lattice.cubic(4.0), ["Am"], [[0, 0, 0]])]), "element"),  # CHGNet: raises
        (nan_cell, "nan"),
        (from_pymatgen([ROCK_SALT]), None),
    ]
    results = CHGNetForceField(gradients=True).evaluate(Structures.concatenate([batch for batch, _ in cases]))
    assert [result.reason for result in results] == [reason for _, reason in cases]
    for (batch, reason), result in zip(cases, results, strict=True):
        assert result.forces.shape == (int(batch.sizes[0]), 3)
        assert np.isfinite(result.energy) == (reason is None)
        assert np.isfinite(result.stress).all() == (reason is None)


def test_no_batch_at_all():
    assert CHGNetForceField().evaluate(from_pymatgen([])) == []
    assert CHGNetForceField().evaluate(from_pymatgen([pair(["W", "W"], 0.5)]))[0].reason == "overlap"


def test_what_only_the_graph_sees_is_a_reason():
    far = Crystal(np.array([14]), np.zeros((1, 3)), np.eye(3) * 9.0)
    with pytest.raises(Failure, match="isolated"):
        crystal_graph(far)
    loose = CHGNetForceField(bounds=CellBounds(max_gap=100.0, max_volume=1e4))
    isolated = from_pymatgen([Structure(Lattice.cubic(9.0), ["Si"], [[0, 0, 0]]), SILICON])
    assert [result.reason for result in loose.evaluate(isolated)] == ["isolated", None]


def test_workers_give_the_same_numbers():
    structures = from_pymatgen([*SAMPLES, pair(["Na", "Cl"], 0.001), *SAMPLES])
    here = CHGNetForceField(batch_size=3).evaluate(structures)
    force_field = CHGNetForceField(batch_size=3, workers=1)
    there = force_field.evaluate(structures)
    force_field.close()
    assert [result.reason for result in there] == [result.reason for result in here]
    np.testing.assert_array_equal([result.energy for result in there], [result.energy for result in here])


def test_only_the_culprit_of_a_lost_batch_stays_without_a_score():
    gases = [Structure(Lattice.cubic(4.0), [symbol], [[0, 0, 0]]) for symbol in ("Xe", "Kr")]
    batch = [SILICON, gases[0], ROCK_SALT, CAESIUM_CHLORIDE, SILICON, gases[1]]
    force_field = CHGNetForceField(batch_size=3, workers=2)
    force_field.computes.executor.close()
    force_field.computes.executor = WorkerPool("chgnet_tasks:fragile", workers=2, timeout=3.0)
    results = force_field.evaluate(from_pymatgen(batch))
    force_field.close()
    assert [results[row].energy for row in (0, 2, 3, 4)] == [14, 11, 55, 14]
    assert [results[row].reason for row in (1, 5)] == ["worker_died", "timeout"]


def test_loading_prints_nothing_and_names_the_weights(capsys):
    load_model.cache_clear()
    load_model("0.3.0", "cpu")
    force_field = CHGNetForceField()
    assert capsys.readouterr() == ("", "")
    assert force_field.model_id == model_id("0.3.0")
    assert force_field.model_id.startswith("chgnet-0.3.0-")
    assert model_id("0.2.0").rpartition("-")[2] != force_field.model_id.rpartition("-")[2]
    assert force_field.correction == "MP2020"


@pytest.mark.parametrize(
    "options",
    [{"weights": "0.9"}, {"batch_size": 0}, {"workers": -1}, {"workers": 2, "device": "cuda"}],
)
def test_impossible_settings(options):
    with pytest.raises(UserError):
        CHGNetForceField(**options)


def test_molecules_are_refused():
    batch = from_pymatgen([SILICON])
    with pytest.raises(UserError, match="no cell"):
        CHGNetForceField().evaluate(Structures(batch.numbers, batch.positions, batch.mask))


def test_calculator_speaks_ase():
    crystal = rattled(PEROVSKITE)
    atoms = Atoms(crystal.atomic_numbers, crystal.cart_coords, cell=crystal.lattice.matrix, pbc=True)
    atoms.calc = CHGNetCalculator()
    direct = evaluate_crystals([to_arrays(crystal)], "0.3.0", "cpu", gradients=True)[0]
    assert atoms.get_potential_energy() == pytest.approx(direct.energy, abs=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), direct.forces, atol=1e-4)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), direct.stress, atol=1e-6)
    atoms.set_cell(atoms.cell * 5, scale_atoms=True)
    with pytest.raises(CalculationFailed, match="isolated"):
        atoms.get_potential_energy()
