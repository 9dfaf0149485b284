"""GFN2-xTB in worker processes: units, reproducibility, failures."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_geometry_checks import WATER, batch, line

from atomrl.core.records import Structures
from atomrl.force_fields import gfn2
from atomrl.force_fields.xtb import XTBForceField, atom_energies
from atomrl.testing import check_force_field
from atomrl.util.errors import UserError
from atomrl.workers.failure import Failure

METHYL = ([6, 1, 1, 1], [[0.0, 0.0, 0.0], [1.08, 0.0, 0.0], [-0.54, 0.935, 0.0], [-0.54, -0.935, 0.0]])
CHAOS = ([1, 8, 7, 8, 6, 8, 7, 1], (np.random.default_rng(3).permutation(8)[:, None] * [0.4, 0.3, 0.8]).tolist())


@pytest.fixture(scope="module")
def force_field():
    field = XTBForceField(workers=1)
    yield field
    field.close()


def test_worker_side_imports_no_torch():
    check = "import sys, atomrl.workers.worker, atomrl.force_fields.gfn2; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_forces_are_the_slope_of_the_energy(force_field):
    check_force_field(force_field, batch(WATER, METHYL))


def test_water_energy_in_ev(force_field):
    """GFN2-xTB's total energy of water is about -5.07 Hartree; the binding energy follows from the atoms' table."""
    result = force_field.evaluate(batch(WATER))[0]
    assert result.energy == pytest.approx(-137.97, abs=0.02)
    atoms = atom_energies()
    assert -16 < result.energy - atoms["O"] - 2 * atoms["H"] < -10


def test_canary_same_molecule_same_energy(force_field):
    """The parent has torch and its threads; energies must not change from call to call."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(200, 200) @ torch.randn(200, 200)
        results = force_field.evaluate(batch(*[WATER] * 50))
    finally:
        torch.set_num_threads(threads)
    energies = np.array([result.energy for result in results])
    assert np.ptp(energies) <= 1e-10
    assert np.ptp([result.forces for result in results], axis=0).max() <= 1e-10


def test_number_of_workers_does_not_matter(force_field):
    molecules = batch(WATER, CHAOS, line(0.0, 0.01), *[WATER, METHYL] * 5, line(0.0, 1.3))
    one = force_field.evaluate(molecules)
    two_workers = XTBForceField(workers=2)
    two = two_workers.evaluate(molecules)
    two_workers.close()
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.energy, second.energy)
        np.testing.assert_array_equal(first.forces, second.forces)
        assert (first.reason, first.flags) == (second.reason, second.flags)


def test_bad_geometries_get_reasons_and_good_ones_results(force_field):
    molecules = [
        (WATER, None),
        (([], []), "no_atoms"),
        (line(0.0, 0.1), "overlap"),
        (line(0.0, float("nan")), "nonfinite"),
        (line(0.0, 900.0), "exploded"),
        (line(0.0, 1.4, element=92), "element"),
        (METHYL, None),
    ]
    results = force_field.evaluate(batch(*[molecule for molecule, _ in molecules]))
    assert [result.reason for result in results] == [reason for _, reason in molecules]
    for (numbers, _), result in zip([molecule for molecule, _ in molecules], results, strict=True):
        assert result.forces.shape == (len(numbers), 3)
        assert np.isfinite(result.energy) == (result.reason is None)
        assert np.isfinite(result.forces).all() == (result.reason is None or not numbers)
    assert results[0].flags == ()
    assert results[-1].flags == ("odd_electrons",)


def test_unconverged_field_is_a_failure():
    field = XTBForceField(workers=1, max_iterations=2)
    water, *_ = field.evaluate(batch(WATER))
    field.close()
    assert water.reason == "scf"


def test_time_out():
    field = XTBForceField(workers=1, timeout=1e-4)
    results = field.evaluate(batch(line(*[1.3 * place for place in range(30)]), line(*[1.3 * x for x in range(30)])))
    field.close()
    assert [result.reason for result in results] == ["timeout", "timeout"]


def test_errors_of_the_library_become_reasons():
    coincident = (np.array([1, 1]), np.zeros((2, 3)))
    with pytest.raises(Failure) as caught:
        gfn2.singlepoint(coincident, max_iterations=100)
    assert caught.value.reason == "overlap"
    undefined = (np.array([1, 1]), np.array([[0, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(Failure) as caught:
        gfn2.singlepoint(undefined, max_iterations=100)
    assert caught.value.reason.startswith("xtb: ")


def test_crystals_are_refused(force_field):
    molecule = batch(WATER)
    crystal = Structures(molecule.numbers, molecule.positions, molecule.mask, torch.eye(3)[None] * 5)
    with pytest.raises(UserError, match="cell"):
        force_field.evaluate(crystal)


def test_table_of_atoms_is_what_the_method_gives():
    program = "import json; from atomrl.force_fields.gfn2 import *; print(json.dumps(compute_atom_energies()))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
    assert json.loads(run.stdout) == pytest.approx(atom_energies(), abs=1e-6)
