"""Distances by average minimum distances, against the package's own conversion and by hand."""

import math

import amd
import numpy as np
import pytest
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, rattled

from atomrl.chemistry.amd import AMDDistances
from atomrl.chemistry.crystals import from_pymatgen, to_pymatgen
from atomrl.chemistry.niggli import to_arrays
from atomrl.rewards.matching import AMDProvider
from atomrl.rewards.metrics import CrystalBatch


def by_package(first: object, second: object) -> float:
    vectors = [amd.AMD(amd.periodicset_from_pymatgen_structure(structure), 100) for structure in (first, second)]
    return float(amd.AMD_cdist(vectors[:1], vectors[1:])[0, 0])


def test_nearest_of_the_same_formula() -> None:
    moved, bigger = rattled(ROCK_SALT, 0.05), rattled(ROCK_SALT, 0.2)
    crystals = [to_arrays(structure) for structure in (ROCK_SALT, moved, PEROVSKITE, CAESIUM_CHLORIDE)]
    distances = AMDDistances([to_arrays(bigger), to_arrays(rattled(PEROVSKITE))])
    found = distances.nearest(crystals)
    expected = by_package(ROCK_SALT, moved)
    assert 0.001 < expected < 0.1
    assert found[0] == pytest.approx(min(expected, by_package(ROCK_SALT, bigger)), rel=1e-9)
    assert found[1] == pytest.approx(min(expected, by_package(moved, bigger)), rel=1e-9)
    assert found[2] == pytest.approx(by_package(PEROVSKITE, rattled(PEROVSKITE)), rel=1e-9)
    assert math.isinf(found[3])
    assert np.array_equal(distances.nearest(crystals), found)


def test_only_positive_distances_count() -> None:
    twins = [to_arrays(ROCK_SALT), to_arrays(ROCK_SALT)]
    assert np.isinf(AMDDistances().nearest(twins)).all()
    reference = to_arrays(rattled(ROCK_SALT))
    assert (AMDDistances([reference]).nearest(twins) == by_package(ROCK_SALT, rattled(ROCK_SALT))).all()


def test_provider() -> None:
    tensors = from_pymatgen([ROCK_SALT, rattled(ROCK_SALT), PEROVSKITE])
    metric = AMDProvider(AMDDistances()).measure(CrystalBatch(tensors, to_pymatgen(tensors)))["amd_distance"]
    assert metric.values.isinf().tolist() == [False, False, True]
    assert metric.reasons == (None, None, None)
