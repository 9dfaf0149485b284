"""The canonical form of a crystal, and CIF text to it."""

import subprocess
import sys

import numpy as np
import pytest
from crystal_samples import PEROVSKITE, ROCK_SALT, rattled
from pymatgen.core import Lattice, Structure

from atomrl.structures.cells import canonical, parse_cif, to_arrays
from atomrl.workers.failure import Failure

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


def test_cif_round_trip():
    crystal = parse_cif(PEROVSKITE.to(fmt="cif"))
    np.testing.assert_array_equal(np.sort(crystal.numbers), np.sort(to_arrays(PEROVSKITE).numbers))
    assert crystal.lattice[0, 0] == pytest.approx(3.95, abs=1e-6)
    assert crystal.numbers.dtype == np.int64


def test_cell_as_written():
    skewed = Structure(Lattice(SKEW @ np.eye(3) * 4), ["Po"], [[0, 0, 0]])
    assert np.linalg.norm(parse_cif(skewed.to(fmt="cif"), niggli=False).lattice, axis=1).max() > 12
    assert np.linalg.norm(parse_cif(skewed.to(fmt="cif")).lattice, axis=1).max() == pytest.approx(4, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cif: "),
        ("not a crystal", "cif: "),
        (PEROVSKITE.to(fmt="cif")[:300], "cif: "),
        (PEROVSKITE.to(fmt="cif").replace("3.95", "?"), "cif: "),
        (Structure(Lattice.cubic(3), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]).to(fmt="cif"), "disordered"),
        (ROCK_SALT.to(fmt="cif").replace("Na", "Qq"), "element"),
    ],
)
def test_broken_text_has_a_reason(text, reason):
    with pytest.raises(Failure) as caught:
        parse_cif(text)
    assert caught.value.reason.startswith(reason)


def test_worker_side_imports_no_torch():
    check = "import sys, atomrl.workers.worker, atomrl.structures.cells; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
