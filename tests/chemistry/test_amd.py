"""Average minimum distances by the definition, in closed form and against stored numbers; distances made of them."""

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON, TRICLINIC, rattled
from pymatgen.core import Structure

from atomrl.matching import amd
from atomrl.matching.amd import AMDDistances, average_minimum_distances
from atomrl.measures.matching import AMDProvider
from atomrl.measures.measure import SoundSamples
from atomrl.structures.cells import Crystal, to_arrays
from atomrl.structures.crystals import from_pymatgen, to_pymatgen

STORED = Path(__file__).parents[1] / "data" / "amd.json"
RANDOM = np.random.default_rng(0)


def crystal(frac_coords: object, lattice: object) -> Crystal:
    places = np.array(frac_coords, dtype=float)
    return Crystal(np.full(len(places), 14), places, np.array(lattice, dtype=float))


def stored() -> list[tuple[Crystal, np.ndarray]]:
    cases = json.loads(STORED.read_text(encoding="utf-8"))["crystals"]
    return [(crystal(case["frac_coords"], case["lattice"]), np.array(case["amd"])) for case in cases]


def by_definition(given: Crystal, neighbors: int = 100, radius: float = 16.0) -> np.ndarray:
    """All copies of all atoms as far as the radius, seen from each atom of the cell."""
    reach = np.ceil(radius * np.linalg.norm(np.linalg.inv(given.lattice), axis=0)).astype(int) + 1
    steps = np.array(np.meshgrid(*[np.arange(-most, most + 1) for most in reach])).reshape(3, -1).T
    places = given.frac_coords % 1
    copies = ((places[:, None] + steps) @ given.lattice).reshape(-1, 3)
    rows = []
    for atom in places @ given.lattice:
        distances = np.sort(np.linalg.norm(copies - atom, axis=1))[1 : neighbors + 1]
        assert distances[-1] < radius
        rows.append(distances)
    return np.mean(rows, axis=0)


def apart(first: Structure, second: Structure) -> float:
    return float(np.abs(by_definition(to_arrays(first)) - by_definition(to_arrays(second))).max())


def shells(length: float, counts: dict[float, int]) -> np.ndarray:
    """Neighbours by the squares of their distances in units of the length."""
    return length * np.sqrt(np.repeat(list(counts), list(counts.values())))[:100]


def test_many_crystals_of_one_formula_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs at once would take 100 MB here, and 80 GB for a collapsed model's 10,000 samples."""
    vectors = RANDOM.random((350, 100))
    vectors[-1] = vectors[0]
    monkeypatch.setattr(amd, "average_minimum_distances", lambda crystals, neighbors: vectors)
    crystals = [to_arrays(SILICON)] * len(vectors)
    tracemalloc.start()
    found = AMDDistances().nearest(crystals)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pairs = [np.abs(vectors - vector).max(1) for vector in vectors]
    assert found.tolist() == [one[one > 0].min() for one in pairs]
    assert peak < 5e6


def test_cubic_lattices_in_closed_form() -> None:
    simple = shells(3.0, {1: 6, 2: 12, 3: 8, 4: 6, 5: 24, 6: 24, 8: 12, 9: 30})
    body = shells(4.12, {0.75: 8, 1: 6, 2: 12, 2.75: 24, 3: 8, 4: 6, 4.75: 24, 5: 24})
    found = average_minimum_distances([crystal([[0.3, 0, 0]], np.eye(3) * 3), to_arrays(CAESIUM_CHLORIDE)])
    np.testing.assert_allclose(found, [simple, body], rtol=1e-14)


def test_stored_numbers() -> None:
    crystals, expected = zip(*stored(), strict=True)
    assert [len(each.numbers) for each in crystals] == [1, 5, 20, 8, 4, 6]
    np.testing.assert_allclose(average_minimum_distances(crystals), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    "given",
    [
        to_arrays(SILICON),
        to_arrays(TRICLINIC),
        crystal(RANDOM.random((7, 3)), RANDOM.normal(0, 3, (3, 3)) + 4 * np.eye(3)),
        crystal(RANDOM.random((3, 3)), [[1.0, 0, 0], [0.3, 1.1, 0], [0.2, 0.4, 30]]),  # a needle
        crystal(RANDOM.random((30, 3)), [[40, 0, 0], [3, 35, 0], [0.2, 0.4, 1]]),  # a sheet
        crystal(RANDOM.random((12, 3)) * 0.2, np.eye(3) * 12),  # a cluster
        crystal([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.6, 0.5, 0.5]], np.eye(3) * 4),  # two atoms at one place
        crystal([[-3.2, 7.1, 0], [5.5, -0.3, 1]], np.diag([3.0, 3.5, -4.0])),  # left-handed, far from its cell
    ],
)
@pytest.mark.parametrize("neighbors", [1, 100])
def test_by_definition(given: Crystal, neighbors: int) -> None:
    found = average_minimum_distances([given], neighbors)[0]
    np.testing.assert_allclose(found, by_definition(given, neighbors, radius=26.0), atol=1e-10, rtol=0)


def test_more_neighbors_than_the_density_promises() -> None:
    """Chains far apart: 74 neighbours are within the first radius of 37 Å, and the 100th is beyond its box."""
    chains = crystal([[0, 0, 0]], np.diag([40.0, 40, 1]))
    found = average_minimum_distances([chains])[0]
    np.testing.assert_allclose(found, by_definition(chains, radius=45.0), atol=1e-10, rtol=0)


@pytest.mark.parametrize("change", [[[1, 0, 0], [3, 1, 0], [-4, 6, 1]], [[1, 9, 0], [0, 1, -8], [0, 0, 1]]])
def test_any_cell_of_a_crystal(change: list[list[int]]) -> None:
    for given, expected in stored():
        other = crystal(given.frac_coords @ np.linalg.inv(change) - 0.4, change @ given.lattice)
        np.testing.assert_allclose(average_minimum_distances([other])[0], expected, atol=1e-10, rtol=0)


def test_a_supercell_is_the_same_crystal() -> None:
    bigger = TRICLINIC.copy().make_supercell([[2, 0, 0], [0, 1, 1], [0, 0, 3]], in_place=False)
    one, six = average_minimum_distances([to_arrays(TRICLINIC), to_arrays(bigger)])
    np.testing.assert_allclose(six, one, atol=1e-12, rtol=0)


def test_the_others_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even of rounding, which would pass for the smallest positive distance of two equal crystals."""
    crystals = [given for given, _ in stored()] + [to_arrays(ROCK_SALT), to_arrays(TRICLINIC)]
    together = average_minimum_distances(crystals)
    alone = np.concatenate([average_minimum_distances([given]) for given in crystals])
    assert np.array_equal(together, alone)
    monkeypatch.setattr(amd, "PAIRS_AT_ONCE", 3000)
    monkeypatch.setattr(amd, "CELLS_AT_ONCE", 300)
    assert np.array_equal(average_minimum_distances(crystals), together)
    assert average_minimum_distances([]).shape == (0, 100)


def test_nearest_of_the_same_formula() -> None:
    moved, bigger = rattled(ROCK_SALT, 0.05), rattled(ROCK_SALT, 0.2)
    crystals = [to_arrays(structure) for structure in (ROCK_SALT, moved, PEROVSKITE, CAESIUM_CHLORIDE)]
    distances = AMDDistances([to_arrays(bigger), to_arrays(rattled(PEROVSKITE))])
    found = distances.nearest(crystals)
    expected = apart(ROCK_SALT, moved)
    assert 0.001 < expected < 0.1
    assert found[0] == pytest.approx(min(expected, apart(ROCK_SALT, bigger)), rel=1e-9)
    assert found[1] == pytest.approx(min(expected, apart(moved, bigger)), rel=1e-9)
    assert found[2] == pytest.approx(apart(PEROVSKITE, rattled(PEROVSKITE)), rel=1e-9)
    assert math.isinf(found[3])
    assert np.array_equal(distances.nearest(crystals), found)
    assert distances.nearest([]).shape == (0,)


def test_only_positive_distances_count() -> None:
    twins = [to_arrays(ROCK_SALT), to_arrays(ROCK_SALT)]
    assert np.isinf(AMDDistances().nearest(twins)).all()
    references = [to_arrays(rattled(ROCK_SALT)), to_arrays(ROCK_SALT)]
    found = AMDDistances(references).nearest(twins)
    assert found.tolist() == pytest.approx([apart(ROCK_SALT, rattled(ROCK_SALT))] * 2, rel=1e-9)


def test_provider() -> None:
    tensors = from_pymatgen([ROCK_SALT, rattled(ROCK_SALT), PEROVSKITE])
    metric = AMDProvider(AMDDistances()).measure(SoundSamples(tensors, to_pymatgen(tensors)))["amd_distance"]
    assert metric.values.isinf().tolist() == [False, False, True]
    assert metric.reasons == (None, None, None)
