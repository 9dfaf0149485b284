"""Materials Project's corrections, against the table of Wang et al. 2021 (eV per atom that is corrected)."""

import numpy as np
import pytest
from crystal_samples import PEROVSKITE, ROCK_SALT, SILICON, TRICLINIC
from pymatgen.core import Lattice, Structure

from atomrl.force_fields.mp2020 import mp2020_correction
from atomrl.structures.cells import to_arrays

OXIDE, PEROXIDE, CHLORIDE, SULFIDE = -0.687, -0.465, -0.614, -0.503
IRON_IN_OXIDES, NICKEL_IN_OXIDES = -2.256, -2.541


def salt(a, *symbols):
    return Structure(Lattice(a / 2 * (1 - np.eye(3))), symbols, [[0, 0, 0], [0.5, 0.5, 0.5]])


def pair_of_oxygen(distance):
    """A barium atom and O2 at this distance."""
    places = [[0, 0, 0], [0.5, 0.5, 0.5 - distance / 10], [0.5, 0.5, 0.5 + distance / 10]]
    return Structure(Lattice.cubic(5.0), ["Ba", "O", "O"], places)


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (SILICON, 0.0),  # elements keep their energies
        (TRICLINIC, CHLORIDE),
        (ROCK_SALT, 4 * CHLORIDE),  # of the cell, not per atom
        (PEROVSKITE, 3 * OXIDE),
        (salt(4.33, "Fe", "O"), IRON_IN_OXIDES + OXIDE),  # PBE+U
        (salt(4.17, "Ni", "O"), NICKEL_IN_OXIDES + OXIDE),
        (salt(4.8, "Fe", "S"), SULFIDE),  # sulfides are computed without U
        (salt(3.5, "Na", "Mg"), 0.0),
        (pair_of_oxygen(1.46), 2 * PEROXIDE),
        (pair_of_oxygen(2.5), 2 * OXIDE),
        (Structure(Lattice.cubic(4.0), ["Ni", "Ar", "O"], np.eye(3) / 2), NICKEL_IN_OXIDES + OXIDE),
    ],
)
def test_table(structure, expected):
    assert mp2020_correction(to_arrays(structure)) == pytest.approx(expected, abs=2e-3)
