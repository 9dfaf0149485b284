"""Crystals as tensors, and which cells are refused before anything looks at them."""

import time

import numpy as np
import pytest
import torch
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON, rattled
from pymatgen.core import Composition, Lattice, Structure

from atomrl.core.records import Structures
from atomrl.structures import crystals
from atomrl.structures.cells import to_arrays
from atomrl.structures.crystals import (
    CellBounds,
    check_cells,
    compositions,
    compositions_of,
    from_pymatgen,
    reduced_cells,
    to_crystals,
    to_pymatgen,
)
from atomrl.util.errors import UserError

NAN, INF = float("nan"), float("inf")
LOOSE = CellBounds(
    min_length=0,
    max_length=1e9,
    min_angle=0,
    max_angle=180,
    min_volume=0,
    max_volume=1e9,
    min_covalent_ratio=0,
    max_gap=1e9,
)


def crystal(cell, places, elements=None):
    """A batch of one, from a cell and fractional coordinates."""
    cell = torch.as_tensor(cell, dtype=torch.float64).reshape(1, 3, 3)
    places = torch.as_tensor(places, dtype=torch.float64).reshape(1, -1, 3)
    numbers = torch.as_tensor(elements or [14] * places.shape[1], dtype=torch.int64).reshape(1, -1)
    return Structures(numbers, places @ cell, torch.ones_like(numbers).bool(), cell)


def cube(length):
    return np.eye(3) * length


def cell_of(*parameters):
    return Lattice.from_parameters(*parameters).matrix.copy()


ORIGIN, CENTER = [0, 0, 0], [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (crystal(cube(3.0), [ORIGIN]), None),
        (crystal(cube(4.2), [ORIGIN, CENTER], [55, 17]), None),
        (crystal(cube(3.0), []), "empty"),
        (crystal(cube(NAN), [ORIGIN]), "nan"),
        (crystal(np.diag([3.0, 3.0, INF]), [ORIGIN]), "nan"),
        (crystal(cube(3.0), [[0, NAN, 0]]), "nan"),
        (crystal(cube(3.0), [ORIGIN], [95]), "element"),
        (crystal(cube(3.0), [ORIGIN], [0]), "element"),
        (crystal(cube(3.0), [ORIGIN], [-3]), "element"),
        (crystal(cube(3.0), [[1e30, 0, 0]]), "exploded"),
        (crystal(cube(0.0), [ORIGIN]), "length"),
        (crystal(cube(0.01), [ORIGIN]), "length"),
        (crystal(np.diag([3.0, 3.0, 1e200]), [ORIGIN]), "length"),
        (crystal(cell_of(4, 4, 4, 5, 90, 90), [ORIGIN]), "angle"),
        (crystal([[4, 0, 0], [8, 0, 0], [0, 0, 4]], [ORIGIN]), "angle"),
        (crystal([[4, 0, 0], [0, 4, 0], [4, 4, 1e-9]], [ORIGIN]), "volume"),
        (crystal(cell_of(3, 3, 3, 119.99, 119.99, 119.99), [ORIGIN]), "volume"),
        (crystal(cube(2.0), np.random.default_rng(0).random((10, 3))), "volume"),
        (crystal(cube(20.0), [ORIGIN, CENTER]), "volume"),
        (crystal(cube(4.0), [ORIGIN, ORIGIN]), "overlap"),
        (crystal(cube(4.0), [ORIGIN, [0.001 / 4, 0, 0]], [11, 17]), "overlap"),
        (crystal(cube(4.0), [ORIGIN, [0, 0, 0.995]]), "overlap"),
        (crystal(cube(4.0), [ORIGIN, [3.0, -2.0, 0.005]]), "overlap"),
        (crystal(np.diag([1.5, 4.0, 4.0]), [ORIGIN], [74]), "overlap"),  # an atom and its own image
        (crystal(np.diag([7.0, 7.0, 7.0]), [ORIGIN]), "isolated"),
        (crystal(cube(4.0), [ORIGIN, [0.74 / 4, 0, 0]], [1, 1]), None),
        (crystal(cube(4.0), [ORIGIN, [0.74 / 4, 0, 0]], [74, 74]), "overlap"),
    ],
)
def test_reasons(sample, reason):
    known = range(1, 95)
    assert check_cells(sample, known) == [reason]
    batch = Structures.concatenate([from_pymatgen([PEROVSKITE]), sample, from_pymatgen([ROCK_SALT])])
    assert check_cells(batch, known) == [None, reason, None]


def test_nothing_hangs_on_extreme_cells():
    generator = torch.Generator().manual_seed(0)
    scales = 10 ** torch.linspace(-30, 30, 500, dtype=torch.float64)[:, None, None]
    cell = torch.randn(500, 3, 3, generator=generator, dtype=torch.float64) * scales
    cell[::7, 2] = cell[::7, 1] * (1 + 1e-12)
    places = torch.rand(500, 20, 3, generator=generator, dtype=torch.float64)
    start = time.process_time()
    reasons = check_cells(
        Structures(torch.full((500, 20), 14), places @ cell, torch.ones(500, 20, dtype=torch.bool), cell)
    )
    assert time.process_time() - start < 5
    assert {"length", "angle", "volume"} <= set(reasons)
    assert reasons.count(None) < 5  # scales of a real crystal are among them


def test_distances_are_those_of_an_exhaustive_search():
    rng = np.random.default_rng(0)
    crystals = []
    while len(crystals) < 60:
        matrix, size = rng.normal(size=(3, 3)) * 4, rng.integers(1, 7)
        if abs(np.linalg.det(matrix)) < 4 * size:
            continue
        for row, other in [rng.choice(3, 2, replace=False) for _ in range(3)]:
            matrix[row] += rng.integers(-2, 3) * matrix[other]
        crystals.append(Structure(Lattice(matrix), ["Si"] * size, rng.uniform(-2, 2, (size, 3))))
    nearest = []
    for one in crystals:
        center, _, _, distance = one.get_neighbor_list(12.0)
        nearest.append([distance[center == atom].min() for atom in range(len(one))])
    batch = from_pymatgen(crystals)
    for threshold in (1.0, 2.0):
        bounds = CellBounds(**{**vars(LOOSE), "min_distance": threshold})
        expected = ["overlap" if min(row) < threshold else None for row in nearest]
        assert check_cells(batch, bounds=bounds) == expected
        assert {None, "overlap"} == set(expected)
    bounds = CellBounds(**{**vars(LOOSE), "min_distance": 0.0, "max_gap": 3.0})
    assert check_cells(batch, bounds=bounds) == ["isolated" if max(row) > 3.0 else None for row in nearest]


def test_one_large_cell_does_not_pad_the_others(monkeypatch):
    """Crystals of a size are looked at together, so that memory grows with their own atoms; verdicts stay."""
    large = ROCK_SALT.make_supercell([4, 4, 2], in_place=False)
    overlapping = Structure(CAESIUM_CHLORIDE.lattice, ["Cs", "Cl"], [[0, 0, 0], [0.1, 0, 0]])
    batch = from_pymatgen([ROCK_SALT, large, overlapping, SILICON, PEROVSKITE])
    expected = [check_cells(batch[row : row + 1])[0] for row in range(len(batch))]
    seen = []

    def crowding(numbers, *arguments):
        seen.append(tuple(numbers.shape))
        return crowded(numbers, *arguments)

    crowded = crystals._crowding
    monkeypatch.setattr(crystals, "_crowding", crowding)
    monkeypatch.setattr(crystals, "PAIRS_AT_ONCE", 27 * 8**2 * 4)
    assert check_cells(batch) == expected
    assert expected[2] == "overlap"
    assert seen == [(4, 8), (1, 256)]


def test_memory_does_not_grow_with_the_square_of_a_crystals_atoms(monkeypatch):
    """Distances of some atoms at a time; verdicts stay, wherever the culprit is."""
    far = Structure(Lattice.cubic(9), ["Si"] * 9, [[x / 9, 0, 0] for x in range(9)])
    far.replace(8, "Si", [0.5, 0.5, 0.9])
    close = Structure(PEROVSKITE.lattice, [*PEROVSKITE.species, "O"], [*PEROVSKITE.frac_coords, [0.5, 0.5, 0.01]])
    batch = from_pymatgen([ROCK_SALT, far, close])
    bounds = CellBounds(**{**vars(LOOSE), "min_distance": 0.9, "max_gap": 3.0})
    expected = check_cells(batch, bounds=bounds)
    seen = []

    def nearest(frac_coords, rows, cell):
        found = distances(frac_coords, rows, cell)
        seen.append(found.numel())
        return found

    distances = crystals._nearest
    monkeypatch.setattr(crystals, "_nearest", nearest)
    monkeypatch.setattr(crystals, "PAIRS_AT_ONCE", 27 * 20)
    assert check_cells(batch, bounds=bounds) == expected == [None, "isolated", "overlap"]
    assert max(seen) <= 20
    assert len(seen) > len(batch)


def test_reduced_cells_have_the_lengths_of_niggli():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(300, 3, 3)) * 4
    cells = cells[np.abs(np.linalg.det(cells)) > 5]
    shears = np.tril(rng.integers(-5, 6, (len(cells), 3, 3)), -1) + np.eye(3)
    reduced = reduced_cells(torch.as_tensor(shears @ cells)).numpy()
    changes = reduced @ np.linalg.inv(cells)
    np.testing.assert_allclose(changes, changes.round(), atol=1e-8)
    np.testing.assert_allclose(np.abs(np.linalg.det(changes)), 1)
    expected = [sorted(Lattice(cell).get_niggli_reduced_lattice(1e-9).lengths) for cell in cells]
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=2), expected, atol=1e-6)


def test_round_trip_through_pymatgen():
    crystals = [rattled(PEROVSKITE), SILICON, CAESIUM_CHLORIDE]
    batch = from_pymatgen(crystals)
    assert batch.numbers.shape == (3, 5)
    assert batch.sizes.tolist() == [5, 2, 2]
    for one, back in zip(crystals, to_pymatgen(batch), strict=True):
        assert one.matches(back, ltol=1e-6, stol=1e-6)
        np.testing.assert_allclose(back.cart_coords, one.cart_coords, atol=1e-9)
    assert to_crystals(batch)[1].numbers.tolist() == [14, 14]


def test_compositions_need_no_sound_geometry():
    batch = Structures.concatenate(
        [from_pymatgen([PEROVSKITE]), crystal(cube(NAN), [ORIGIN]), crystal(cube(1.0), [ORIGIN], [0])]
    )
    assert compositions(batch) == [Composition("SrTiO3"), Composition("Si"), Composition({})]


@pytest.mark.parametrize("at_once", [1, 2, 3, 1024])
def test_compositions_of_any_number_of_crystals(at_once, monkeypatch):
    monkeypatch.setattr(crystals, "AT_ONCE", at_once)
    made = [to_arrays(crystal) for crystal in (PEROVSKITE, SILICON, CAESIUM_CHLORIDE)]
    found = [composition.reduced_formula for composition in compositions_of(iter(made))]
    assert found == ["SrTiO3", "Si", "CsCl"]
    assert list(compositions_of([])) == []


def test_empty_batches():
    nothing = from_pymatgen([])
    assert check_cells(nothing) == []
    assert to_crystals(nothing) == []
    width_zero = Structures(
        torch.zeros(2, 0, dtype=torch.int64),
        torch.zeros(2, 0, 3),
        torch.zeros(2, 0, dtype=torch.bool),
        torch.eye(3).repeat(2, 1, 1),
    )
    assert check_cells(width_zero) == ["empty", "empty"]


def test_molecules_and_refused_cells_are_user_errors():
    batch = from_pymatgen([SILICON])
    molecule = Structures(batch.numbers, batch.positions, batch.mask)
    for function in (check_cells, to_crystals, to_pymatgen):
        with pytest.raises(UserError, match="no cell"):
            function(molecule)
    with pytest.raises(UserError, match="check_cells"):
        to_pymatgen(crystal(cube(3.0), []))
