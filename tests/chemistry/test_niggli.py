"""The canonical form of a crystal."""

import subprocess
import sys

import numpy as np
from crystal_samples import PEROVSKITE, ROCK_SALT, rattled
from pymatgen.core import Lattice, Structure

from atomrl.structures.cells import canonical

SKEW = np.array([[1, 3, 0], [0, 1, 0], [-2, 4, 1]])


def distances(structure):
    """Sorted distances of all pairs, which no choice of cell changes."""
    return np.sort(structure.distance_matrix, axis=None)


def test_one_form_for_all_cells_of_a_lattice():
    crystal = rattled(PEROVSKITE)
    skewed = Structure(
        Lattice(SKEW @ crystal.lattice.matrix), crystal.species, crystal.cart_coords, coords_are_cartesian=True
    )
    assert min(skewed.lattice.angles) < 20
    first, second = canonical(crystal), canonical(skewed)
    np.testing.assert_allclose(first.lattice.parameters, second.lattice.parameters, atol=1e-5)
    np.testing.assert_allclose(distances(second), distances(crystal), atol=1e-5)
    assert second.species == crystal.species
    assert (second.frac_coords >= 0).all()
    assert (second.frac_coords < 1).all()


def test_orientation_is_rebuilt_from_the_parameters():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = Structure(Lattice(ROCK_SALT.lattice.matrix @ turn), ROCK_SALT.species, ROCK_SALT.frac_coords)
    form = canonical(turned)
    np.testing.assert_allclose(form.lattice.matrix, Lattice.from_parameters(*form.lattice.parameters).matrix, atol=1e-9)


def test_worker_side_imports_no_torch():
    check = "import sys, atomrl.workers.worker, atomrl.structures.cif; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
