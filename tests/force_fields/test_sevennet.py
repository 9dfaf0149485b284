"""SevenNet-0: the package's own numbers, CHGNet's scale, bad cells, and files that would run code."""

import hashlib
import math
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON, TRICLINIC, rattled
from molecules import rattled as rattled_molecules
from pymatgen.core import Composition, Lattice, Structure

pytest.importorskip("sevenn", reason="the extra sevennet is not installed: pip install 'atomrl[sevennet]'")

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.core.records import Structures
from atomrl.force_fields import sevennet
from atomrl.force_fields.build import build_force_field
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.force_fields.mp2020 import mp2020_correction
from atomrl.force_fields.sevennet import SevenNetForceField, SevenNetMolecules
from atomrl.measures.physics import HullProvider
from atomrl.structures.cells import to_arrays
from atomrl.structures.crystals import from_pymatgen
from atomrl.structures.listing import to_atoms
from atomrl.testing import check_crystal_force_field, check_force_field
from atomrl.util.errors import UserError

SAMPLES = [PEROVSKITE, SILICON, rattled(ROCK_SALT), CAESIUM_CHLORIDE, TRICLINIC]
CAESIUM = Structure(Lattice.cubic(6.14), ["Cs", "Cs"], [[0, 0, 0], [0.5, 0.5, 0.5]])
"""Its atoms are 5.3 Å apart, beyond SevenNet's cutoff."""


def salt(a, *symbols):
    return Structure(Lattice(a / 2 * (1 - np.eye(3))), symbols, [[0, 0, 0], [0.5, 0.5, 0.5]])


def energies(results):
    return [result.energy for result in results]


@pytest.fixture(scope="module")
def calculator():
    """SevenNet-0 as its own package loads and runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends accelerators that need a GPU
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator("7net-0", device="cpu")


def test_agrees_with_the_package(calculator):
    results = SevenNetForceField(gradients=True, batch_size=3).evaluate(from_pymatgen(SAMPLES))
    for structure, result in zip(SAMPLES, results, strict=True):
        atoms = Atoms(structure.atomic_numbers, structure.cart_coords, cell=structure.lattice.matrix, pbc=True)
        atoms.calc = calculator
        raw = result.energy - mp2020_correction(to_arrays(structure))
        assert raw == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(result.forces, atoms.get_forces(), atol=1e-4)
        np.testing.assert_allclose(result.stress, atoms.get_stress(voigt=False), atol=1e-5)


def test_energies_are_on_the_scale_of_chgnet():
    """Both are meant to say what Materials Project would; raw energies of these compounds differ by 0.2 to 1.5."""
    compounds = [
        salt(5.69, "Na", "Cl"),
        salt(4.25, "Mg", "O"),
        salt(4.38, "Fe", "O"),
        salt(4.07, "Li", "F"),
        PEROVSKITE,
    ]
    batch = from_pymatgen(compounds)
    ours, theirs = energies(SevenNetForceField().evaluate(batch)), energies(CHGNetForceField().evaluate(batch))
    np.testing.assert_allclose(np.array(ours) / batch.sizes.numpy(), np.array(theirs) / batch.sizes.numpy(), atol=0.1)
    raw = np.array([ours[row] - mp2020_correction(to_arrays(compounds[row])) for row in range(len(compounds))])
    assert (np.abs(raw - theirs) / batch.sizes.numpy() > 0.15).all()


def test_forces_and_stress_are_slopes_of_the_energy():
    check_crystal_force_field(
        SevenNetForceField(gradients=True), from_pymatgen([rattled(PEROVSKITE), TRICLINIC]), step=2e-3
    )


def test_batches_do_not_matter_and_forces_come_only_if_asked_for():
    structures = from_pymatgen([*SAMPLES, CAESIUM])
    one, many = (SevenNetForceField(batch_size=size).evaluate(structures) for size in (1, 4))
    for first, second, size in zip(one, many, structures.sizes.tolist(), strict=True):
        assert first.energy == pytest.approx(second.energy, abs=1e-4)
        assert first.reason is second.reason is None
        assert first.forces.shape == (size, 3)
        assert np.isnan(first.forces).all()
        assert np.isnan(first.stress).all()


def test_atoms_beyond_the_cutoff_still_have_an_energy():
    result = SevenNetForceField(gradients=True).evaluate(from_pymatgen([CAESIUM]))[0]
    assert result.energy / 2 == pytest.approx(-0.86, abs=0.05)  # that of Materials Project
    assert (result.forces == 0).all()
    assert (result.stress == 0).all()


def test_bad_cells_are_refused_with_reasons():
    box = Lattice.cubic(4.0)
    broken = from_pymatgen([SILICON])
    cases = [
        (from_pymatgen([SILICON]), None),
        (from_pymatgen([Structure(box, ["Na", "Cl"], [[0, 0, 0], [0.0003, 0, 0]])]), "overlap"),
        (from_pymatgen([Structure(Lattice.cubic(2.0), ["Si"] * 5, np.random.default_rng(0).random((5, 3)))]), "volume"),
        (from_pymatgen([Structure(Lattice.cubic(7.0), ["Si"], [[0, 0, 0]])]), "isolated"),
        (from_pymatgen([Structure(box, ["Po"], [[0, 0, 0]])]), "element"),  # CHGNet knows it
        (Structures(broken.numbers, broken.positions, broken.mask, broken.cell * math.nan), "nan"),
        (Structures(broken.numbers * 0, broken.positions, broken.mask & False, broken.cell), "empty"),
        (from_pymatgen([ROCK_SALT]), None),
    ]
    results = SevenNetForceField().evaluate(Structures.concatenate([batch for batch, _ in cases]))
    assert [result.reason for result in results] == [reason for _, reason in cases]
    assert [math.isfinite(energy) for energy in energies(results)] == [reason is None for _, reason in cases]


def test_no_batch_at_all():
    assert SevenNetForceField().evaluate(from_pymatgen([])) == []


def test_workers_give_the_same_numbers():
    structures = from_pymatgen(SAMPLES)
    with SevenNetForceField(batch_size=3, workers=1) as force_field:
        there = energies(force_field.evaluate(structures))
    np.testing.assert_allclose(there, energies(SevenNetForceField(batch_size=3).evaluate(structures)), atol=1e-5)


def test_another_model_s_hull_is_refused():
    judge, chgnet = SevenNetForceField(), CHGNetForceField()
    entries = [HullEntry(Composition("Si"), -5.4, "Si")]
    with pytest.raises(UserError, match="model_id"):
        HullProvider(judge, Hull(HullKey(chgnet.model_id, chgnet.correction, "set-1"), entries))
    with pytest.raises(UserError, match="correction"):
        HullProvider(judge, Hull(HullKey(judge.model_id, "none", "set-1"), entries))
    HullProvider(judge, Hull(HullKey(judge.model_id, judge.correction, "set-1"), entries))


def test_identity():
    judge, digest = SevenNetForceField(), hashlib.sha256(sevennet._weights_file().read_bytes()).hexdigest()
    assert judge.model_id == f"sevennet-0-11jul2024-{digest[:12]}"
    assert judge.elements == frozenset(sevennet.load_model("cpu", False).type_map)


def test_loading_runs_no_code(tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"config": Trap()}, tmp_path / "weights.pth")
    monkeypatch.setattr(sevennet, "_weights_file", lambda: tmp_path / "weights.pth")
    with pytest.raises(pickle.UnpicklingError):
        sevennet.load_model.__wrapped__("cpu", False)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": -1}, {"workers": 2, "device": "cuda"}])
def test_impossible_settings(options):
    with pytest.raises(UserError):
        SevenNetForceField(**options)


def test_molecules_keep_what_a_force_field_promises():
    check_force_field(SevenNetMolecules(batch_size=3, device="cpu"), rattled_molecules(), step=2e-3)


def test_molecules_agree_with_the_package(calculator):
    structures = rattled_molecules()
    for atoms, result in zip(to_atoms(structures), SevenNetMolecules().evaluate(structures), strict=True):
        atoms.calc = calculator
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(result.forces, atoms.get_forces(), atol=1e-4)


def test_molecules_by_the_name_of_the_force_field():
    field = build_force_field({"_target_": "sevennet", "batch_size": 2}, {"device": "cpu"})
    assert isinstance(field, SevenNetMolecules)
    references = field.atom_energies()
    assert all(-9 < references[symbol] < -3 for symbol in "HCNOF")  # of an atom in a typical compound, not alone
