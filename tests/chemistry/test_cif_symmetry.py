"""Whether the operations of a group map a crystal onto itself."""

import gemmi
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomrl.structures.cif import parse_cif
from atomrl.structures.cif_symmetry import Operations, tabulated


def group(name: str) -> Operations:
    return tabulated(gemmi.find_spacegroup_by_name(name))


def test_a_large_and_empty_cell_of_a_cubic_group() -> None:
    """As of a metal-organic framework: each of 192 operations looks at the atoms, and not at the volume."""
    lattice = Lattice.cubic(25.83)
    sites, places = group("F m -3 m").orbits(np.array([[0.11, 0.07, 0.31], [0.25, 0.25, 0.25]]), lattice.matrix)
    crystal = Structure(lattice, [["C", "Zn"][site] for site in sites], places)
    assert len(crystal) == 200
    assert group("F m -3 m").keep(crystal)
    named = crystal.to(fmt="cif").replace("'P 1'", "'F m -3 m'").replace("_number   1", "_number   225")
    assert len(parse_cif(named, niggli=False).crystal.numbers) == 200
    crystal.replace(0, "N")
    assert not group("F m -3 m").keep(crystal)


@pytest.mark.parametrize("angles", [(60, 60, 60), (140, 110, 100), (60, 60, 118), (90, 90, 140)])
def test_no_pair_is_lost_in_a_skewed_cell(angles: tuple[float, float, float]) -> None:
    """Atoms that are 0.09 Å from where inversion takes their partners, in any direction, are there; 0.11 Å is away."""
    lattice, random = Lattice.from_parameters(9.0, 11.0, 10.0, *angles), np.random.default_rng(0)
    half = random.random((20, 3)) * 0.98 + 0.01
    half[0] = [0.0, 1e-12, 0.5]  # pairs across the border of the cell
    steps = random.normal(size=(20, 3))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    for apart, kept in ((0.09, True), (0.11, False)):
        other = -half + apart * steps @ np.linalg.inv(lattice.matrix)
        crystal = Structure(lattice, ["C"] * 40, np.concatenate([half, other]))
        assert group("P -1").keep(crystal) == kept


def test_other_elements_are_no_images() -> None:
    crystal = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    assert not group("P -1").keep(crystal)
