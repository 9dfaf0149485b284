"""The reduced cell is the one that pymatgen finds."""

from collections.abc import Iterator

import numpy as np
from pymatgen.core.lattice import Lattice

from atomrl.structures.niggli import is_lll_reduced, niggli_cell, similar_bases


def cells() -> Iterator[np.ndarray]:
    """Cells at random, near-cubic ones, and symmetric ones in other bases of their lattice."""
    draw = np.random.default_rng(0)
    for _ in range(40):
        yield 4 * draw.normal(size=(3, 3))
        yield Lattice.from_parameters(*draw.uniform(3, 6, 3), *draw.uniform(60, 120, 3)).matrix
        yield 4 * np.eye(3) + 1e-6 * draw.normal(size=(3, 3)) * (draw.random() < 0.5)
        symmetric = draw.choice([Lattice.hexagonal(3, 5).matrix, 3 * (1 - np.eye(3)), 2 * (1 - 2 * np.eye(3))])
        yield draw.integers(-2, 3, (3, 3)) @ symmetric


def test_same_cell_as_pymatgen() -> None:
    untouched = count = 0
    for cell in cells():
        if abs(np.linalg.det(cell)) < 1:
            continue
        lattice = Lattice(cell)
        _, mapping = lattice._calculate_lll()
        assert is_lll_reduced(cell) == np.array_equal(mapping, np.eye(3))
        np.testing.assert_allclose(niggli_cell(cell), lattice.get_niggli_reduced_lattice().matrix, atol=1e-9)
        untouched, count = untouched + is_lll_reduced(cell), count + 1
    assert 20 < untouched < count - 20


def test_all_bases_near_a_cell() -> None:
    for cell, number in ((4 * np.eye(3), 48), (Lattice.hexagonal(3, 5).matrix, 24), (np.diag([3.0, 4.5, 7.0]), 8)):
        lattice = Lattice(cell)
        expected = [whole for _, _, whole in lattice.find_all_mappings(lattice, 0.2, 5, skip_rotation_matrix=True)]
        found = similar_bases(cell, np.array(lattice.parameters), 0.2, 5)
        assert len(found) == number
        np.testing.assert_array_equal(found, expected)
