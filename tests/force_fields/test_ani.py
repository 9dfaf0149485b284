"""ANI-1x: forces are slopes of the energy, batches change nothing, bad molecules fail alone; as a second judge."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("torchani", reason="the extra ani is not installed: pip install 'atomrl[ani]'")

from ase.build import molecule

from atomrl.cli import main
from atomrl.core.records import Structures
from atomrl.force_fields.ani import ANIForceField
from atomrl.force_fields.xtb import XTBForceField

NAMES = ["H2O", "CH4", "CH3CH2OH", "NH3", "C6H6"]


def from_atoms(molecules):
    """As one batch."""
    parts = [
        Structures(
            torch.tensor(atoms.numbers)[None],
            torch.tensor(atoms.positions)[None],
            torch.ones(1, len(atoms), dtype=torch.bool),
        )
        for atoms in molecules
    ]
    return Structures.concatenate(parts)


def rattled(names, size=0.08):
    rng = np.random.default_rng(0)
    atoms = [molecule(name) for name in names]
    for one in atoms:
        one.positions += size * rng.standard_normal(one.positions.shape)
    return from_atoms(atoms)


def test_forces_are_slopes_of_the_energy():
    structures, step = rattled(["CH3CH2OH"]), 2e-3
    (found,) = ANIForceField().evaluate(structures)
    for atom, axis in ((0, 0), (4, 2), (8, 1)):
        energies = []
        for sign in (1, -1):
            positions = structures.positions.clone()
            positions[0, atom, axis] += sign * step
            moved = Structures(structures.numbers, positions, structures.mask)
            energies.append(ANIForceField().evaluate(moved)[0].energy)
        slope = (energies[0] - energies[1]) / (2 * step)
        assert -slope == pytest.approx(found.forces[atom, axis], abs=0.05)


def test_near_minima_it_agrees_with_xtb():
    structures = rattled(NAMES)
    ours, theirs = ANIForceField().evaluate(structures), XTBForceField(1).evaluate(structures)
    pairs = [np.corrcoef(a.forces.ravel(), b.forces.ravel())[0, 1] for a, b in zip(ours, theirs, strict=True)]
    assert min(pairs) > 0.95


def test_a_batch_changes_nothing():
    structures = rattled(NAMES)
    alone = ANIForceField(batch_size=1).evaluate(structures)
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
