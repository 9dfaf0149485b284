"""The Fréchet distance against closed forms, and the interval of the diversity."""

import math

import numpy as np
import pytest

from atomrl.measures.frechet import diversity, frechet_distance
from atomrl.util.errors import UserError


def rows(mean, covariance, count=200, seed=0):
    """Rows whose mean and covariance are exactly these."""
    drawn = np.random.default_rng(seed).normal(size=(count, len(mean)))
    drawn -= drawn.mean(0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(drawn, rowvar=False)))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_one_feature():
    # (1 - 4)^2 + (2 - 5)^2 of means and standard deviations
    distance = frechet_distance(rows([1.0], [[4.0]]), rows([4.0], [[25.0]], seed=1))
    assert distance == pytest.approx(9 + 9)


def test_commuting_covariances():
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 3.0, 0.5, 1.0])
    distance = frechet_distance(
        rows(np.zeros(4), turn @ np.diag(first**2) @ turn.T),
        rows(np.full(4, 0.5), turn @ np.diag(second**2) @ turn.T, seed=1),
    )
    assert distance == pytest.approx(1.0 + np.square(first - second).sum())


def test_covariances_that_do_not_commute():
    first, second = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 3.0]])
    # tr (C D)^(1/2) of 2 x 2 matrices: sqrt(tr C D + 2 sqrt(det C D))
    root = math.sqrt(np.trace(first @ second) + 2 * math.sqrt(np.linalg.det(first @ second)))
    expected = np.trace(first) + np.trace(second) - 2 * root
    assert frechet_distance(rows([0, 0], first), rows([0, 0], second, seed=1)) == pytest.approx(expected)


def test_identical_sets_and_fewer_rows_than_features():
    few = np.random.default_rng(0).normal(size=(5, 40))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 1) == pytest.approx(40, abs=1e-6)


def test_what_has_no_distance_is_refused():
    good = np.zeros((3, 2))
    for bad in (np.zeros((1, 2)), np.zeros((3, 5)), np.array([[0.0, np.nan], [1.0, 1.0]])):
        with pytest.raises(UserError, match="Fréchet"):
            frechet_distance(good, bad)


def test_diversity_interval_holds_the_truth():
    rng = np.random.default_rng(5)
    reference = rng.normal(size=(20_000, 2))
    truth = 1 / (1 + 2 * 0.25)  # means apart by 0.5 in each of two features
    hits = 0
    for seed in range(40):
        found = diversity(rng.normal(0.5, size=(400, 2)), reference, seed)
        assert found.low < found.value < found.high
        assert found.denominator == 400
        hits += found.low <= truth <= found.high
    assert hits >= 34


def test_collapse_lowers_diversity():
    reference = np.random.default_rng(0).normal(size=(500, 3))
    wide, narrow = diversity(reference[:200], reference), diversity(0.1 * reference[:200], reference)
    assert wide.value > 0.9
    assert narrow.high < wide.low


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_have_none(count):
    found = diversity(np.zeros((count, 2)), np.random.default_rng(0).normal(size=(9, 2)))
    assert math.isnan(found.value)
    assert found.denominator == count
