"""ANI-1x: forces are slopes of the energy, batches change nothing, bad molecules fail alone; as a second judge."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("torchani", reason="the extra ani is not installed: pip install 'atomrl[ani]'")

from ase.build import molecule
from molecule_batches import from_atoms
from molecules import rattled

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.domains.molecule_reward import molecule_reward
from atomrl.force_fields.ani import ANIForceField
from atomrl.force_fields.build import build_force_field
from atomrl.force_fields.xtb import XTBForceField
from atomrl.testing import check_force_field
from atomrl.util.errors import UserError


def test_what_a_force_field_promises():
    check_force_field(ANIForceField(), rattled(), step=2e-3)


def test_near_minima_it_agrees_with_xtb():
    structures = rattled()
    ours, theirs = ANIForceField().evaluate(structures), XTBForceField(1).evaluate(structures)
    pairs = [np.corrcoef(a.forces.ravel(), b.forces.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True)]
    assert min(pairs) > 0.95


def test_a_batch_changes_nothing():
    structures = rattled()
    alone = ANIForceField(batch_size=2).evaluate(structures)
    together = ANIForceField().evaluate(structures)
    for one, other in zip(alone, together, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-3)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-3)


def test_what_it_does_not_know_fails_alone():
    atoms = [molecule("CH3Cl"), molecule("H2O"), molecule("H2O")]
    atoms[2].positions[1] = atoms[2].positions[0]
    found = ANIForceField().evaluate(from_atoms(atoms))
    assert [result.reason for result in found] == ["element", None, "overlap"]
    assert np.isnan(found[0].energy)
    assert np.isfinite(found[1].forces).all()
    assert ANIForceField().evaluate(from_atoms(atoms[:1]))[0].reason == "element"


def test_the_gradient_is_taken_where_none_is_asked_for():
    with torch.no_grad():
        assert np.isfinite(ANIForceField().evaluate(rattled(["H2O"]))[0].forces).all()


def test_as_a_second_judge_its_forces_stand_in_a_table_of_their_own(tmp_path):
    words = ["evaluate", "--num-molecules", "6", "--time-step", "20", "--output", str(tmp_path / "table")]
    main([*words, "--device", "cpu", "evaluation.second_judge=ani"])
    table = json.loads((tmp_path / "table" / "evaluation_second_judge.json").read_text())
    assert table["evaluator"] == "ANI-1x"
    assert table["metrics"]["known_elements"]["columns"]["base"]["denominator"] == 6
    assert set(table["metrics"]) <= {"known_elements", "rms_force_median", "rms_force_mean", "force_field_failures"}


SETTINGS = {"workers": 1, "timeout": 10.0, "device": "cpu"}


def test_by_its_name_with_options():
    structures = rattled()
    plain = build_force_field("ani", SETTINGS).evaluate(structures)
    small = build_force_field({"_target_": "ani", "batch_size": 2}, SETTINGS).evaluate(structures)
    assert [one.energy for one in small] == pytest.approx([one.energy for one in plain], abs=1e-3)
    with pytest.raises(UserError, match=r"reward\.force_field: ani takes no speed; it takes batch_size"):
        build_force_field({"_target_": "ani", "speed": 2}, SETTINGS)
    for size in (0, 1.5, "many"):
        with pytest.raises(UserError, match="batch_size must be a whole number from 1"):
            build_force_field({"_target_": "ani", "batch_size": size}, SETTINGS)


def test_energies_of_atoms_leave_binding_energies():
    """Water is bound by 10.1 eV, methane by 18.2, benzene by 59.3 (measured, without zero-point motion); the references
    are a fit, so that each atom may be off by an eV or two.
    """
    field = ANIForceField()
    references = field.atom_energies()
    assert set(references) == {"H", "C", "N", "O"}
    assert references["C"] == pytest.approx(-38.08 * 27.211, abs=3)
    structures = from_atoms([molecule("H2O"), molecule("CH4"), molecule("C6H6")])
    per_atom = [
        (result.energy - sum(references[symbol] for symbol in molecule(name).symbols)) / len(molecule(name))
        for result, name in zip(field.evaluate(structures), ("H2O", "CH4", "C6H6"), strict=True)
    ]
    assert all(-8 < energy < 2 for energy in per_atom)


def test_a_reward(tmp_path):
    """Elements that it does not know are refused before anything is sampled."""
    words = ["reward.type=ani", "reward.use_energy=true", "reward.energy_atom_refs=own", "device=cpu"]
    config = load_config("fed_grpo_config", words)
    from atomrl.checkpoints.backbone import load_backbone

    with pytest.raises(UserError, match=r"reward\.type=ani does not know the backbone's elements F"):
        molecule_reward(config, load_backbone("edm_qm9_small"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_says_the_same():
    structures = rattled()
    here, there = (ANIForceField(device=device).evaluate(structures) for device in ("cpu", "cuda"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-3)
