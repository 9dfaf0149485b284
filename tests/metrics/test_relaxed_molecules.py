"""Relaxing molecules: what a minimum is, and what a relaxation changes."""

import json
import math

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.spatial.transform import Rotation

from atomrl.cli import main
from atomrl.core.records import Structures
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.evaluation.relaxed_molecules import superposed_rmsd
from atomrl.force_fields.gfn2 import singlepoint
from atomrl.force_fields.gfn2_relax import relax_molecule

OPTIONS = {"max_iterations": 100, "fmax": 0.05, "max_steps": 500, "max_seconds": 60.0}


def batch(*molecules):
    parts = [
        Structures(torch.tensor(z)[None], torch.tensor(x)[None], torch.ones(1, len(z), dtype=torch.bool))
        for z, x in molecules
    ]
    return Structures.concatenate(parts)


def rattled(name, size=0.1):
    atoms = molecule(name)
    return atoms.numbers, atoms.positions + size * np.random.default_rng(1).standard_normal(atoms.positions.shape)


def test_a_relaxation_ends_in_a_minimum():
    item = rattled("CH3CH2OH")
    positions, reason = relax_molecule(item, **OPTIONS)
    assert reason is None
    energy, forces, _ = singlepoint((item[0], positions), 100)
    assert np.linalg.norm(forces, axis=1).max() <= 0.05
    assert energy < singlepoint(item, 100)[0] - 0.1


@pytest.mark.parametrize(("changed", "reason"), [({"max_steps": 2}, "unconverged"), ({"max_seconds": 0.0}, "slow")])
def test_an_end_that_is_no_minimum_says_why(changed, reason):
    item = rattled("CH3CH2OH")
    positions, found = relax_molecule(item, **(OPTIONS | changed))
    assert found == reason
    assert not np.array_equal(positions, item[1]) or reason == "slow"


def test_a_molecule_that_cannot_be_evaluated_says_why():
    numbers, positions = rattled("H2O")
    positions[1] = positions[0]
    assert relax_molecule((numbers, positions), **OPTIONS).reason == "overlap"


def test_distance_after_superposition():
    rng = np.random.default_rng(0)
    first, second = rattled("CH3CH2OH"), rattled("H2O")
    turned = [(z, x @ Rotation.random(random_state=3).as_matrix().T + rng.normal(size=3)) for z, x in (first, second)]
    np.testing.assert_allclose(superposed_rmsd(batch(first, second), batch(*turned)), 0, atol=1e-6)
    other = (first[0], first[1] + 0.2 * rng.standard_normal(first[1].shape))
    centred = [x - x.mean(0) for _, x in (first, other)]
    _, residual = Rotation.align_vectors(centred[1], centred[0])
    expected = residual / len(first[0]) ** 0.5
    assert superposed_rmsd(batch(first), batch(other)) == pytest.approx([expected])
    mirrored = (first[0], first[1] * [1, 1, -1])
    assert superposed_rmsd(batch(first), batch(mirrored))[0] > 0.05


def test_a_molecule_without_atoms_has_no_distance():
    """It stands for one that could not be read; it costs itself only."""
    with_none = batch(rattled("H2O"), rattled("H2O"))
    with_none.mask[1] = False
    np.testing.assert_allclose(superposed_rmsd(with_none, with_none), [0, np.nan], atol=1e-6)


def test_what_a_relaxation_changes():
    """A molecule at its minimum, one beside it, and two that no force field can be asked about."""
    minimum = (rattled("CH4")[0], relax_molecule(rattled("CH4"), **OPTIONS | {"fmax": 0.005}).positions)
    broken = rattled("H2O")
    broken[1][1] = broken[1][0]
    lost = rattled("H2O")
    lost[1][0] = math.nan
    with MoleculePanel(workers=1, relaxed=4) as panel:
        table = panel.judge(batch(minimum, rattled("CH3OH", 0.04), broken, lost)).further["relaxed"]
    summary = table.summary
    assert summary["relaxed"].value == 0.5
    assert summary["same_molecule"].value == 0.5
    for name, least in (("strain_energy_median", 0.01), ("rmsd_median", 0.02)):  # of 0, some, and two infinite
        assert least < summary[name].value < 0.3
        assert summary[name].high == math.inf
    assert table.failures["relaxation"] == {"overlap": 1, "nonfinite": 1}


def test_an_evaluation_relaxes_as_many_as_it_is_asked_to(tmp_path):
    words = ["evaluate", "--num-molecules", "4", "--time-step", "20", "--output", str(tmp_path / "table")]
    main([*words, "--device", "cpu", "evaluation.relaxed=3", "reward.workers=1"])
    table = json.loads((tmp_path / "table" / "evaluation_relaxed.json").read_text())
    assert table["metrics"]["relaxed"]["columns"]["base"]["denominator"] == 3
    assert "BFGS to 0.05 eV/Å" in table["conditions"]["geometry"]
