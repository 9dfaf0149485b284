import math

import numpy as np
import pytest

from atomrl.evaluation.table import cell
from atomrl.measures.bootstrap import Estimate, distinct_ratio, mean, median, proportion, ratio
from atomrl.util.errors import UserError


def covered(estimates, truth):
    """Share of intervals that hold the truth."""
    return np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])


def test_coverage_of_a_proportion_and_a_mean():
    rng = np.random.default_rng(0)
    shares = [proportion(rng.random(300) < 0.3, seed, 500) for seed in range(200)]
    means = [mean(rng.normal(2.0, 1.0, 300), seed, 500) for seed in range(200)]
    assert 0.90 <= covered(shares, 0.3) <= 0.99
    assert 0.90 <= covered(means, 2.0) <= 0.99


def test_coverage_of_a_median():
    rng = np.random.default_rng(1)
    assert 0.89 <= covered([median(rng.exponential(1.0, 301), seed, 500) for seed in range(200)], math.log(2)) <= 0.99


@pytest.mark.parametrize("species", [200, 3000, 30000, 300000])
def test_coverage_of_uniqueness(species):
    """Expected uniqueness of 500 draws among equally likely species, against the jackknife."""
    rng, draws = np.random.default_rng(2), 500
    truth = species * (1 - (1 - 1 / species) ** draws) / draws
    everyone = np.ones(draws, dtype=bool)
    estimates = [distinct_ratio(rng.integers(species, size=draws), everyone, "labelled") for _ in range(300)]
    assert covered(estimates, truth) >= 0.94
    spread = np.std([estimate.value for estimate in estimates])
    assert np.mean([estimate.high - estimate.low for estimate in estimates]) < 2 * 2 * 1.96 * spread + 0.01
    assert np.mean([estimate.value for estimate in estimates]) == pytest.approx(
        truth, abs=3 * spread / math.sqrt(300) + 1e-9
    )


def test_distinct_counts_by_hand():
    labels = np.array([0, 0, 1, 2, -1, 3, 3, 3])
    novel = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    valid = labels >= 0
    uniqueness = distinct_ratio(labels, valid, "labelled")
    both = distinct_ratio(labels, valid, "samples")
    novelty = distinct_ratio(labels, novel, "distinct")
    assert (uniqueness.value, uniqueness.denominator) == (4 / 7, 7)
    assert (both.value, both.denominator) == (4 / 8, 8)
    assert (novelty.value, novelty.denominator) == (2 / 4, 4)


@pytest.mark.parametrize("whole", ["labelled", "samples", "distinct"])
def test_jackknife_is_leave_one_out(whole):
    rng = np.random.default_rng(3)
    labels = rng.integers(-1, 20, size=40)
    counted = (labels >= 0) & (labels % 3 > 0)
    top = lambda rows: len(set(labels[rows & counted]))  # noqa: E731
    bottom = {
        "labelled": lambda rows: int((labels[rows] >= 0).sum()),
        "samples": lambda rows: int(rows.sum()),
        "distinct": lambda rows: len(set(labels[rows & (labels >= 0)])),
    }[whole]
    without = np.ones((40, 40), dtype=bool) ^ np.eye(40, dtype=bool)
    left_out = np.array([top(rows) / bottom(rows) for rows in without])
    error = math.sqrt(39 / 40 * np.square(left_out - left_out.mean()).sum())
    found = distinct_ratio(labels, counted, whole)
    slope = 2 * math.sqrt(found.value * (1 - found.value))
    for end in (found.low, found.high):
        reach = abs(math.asin(math.sqrt(end)) - math.asin(math.sqrt(found.value)))
        assert reach * slope == pytest.approx(1.959964 * error, rel=1e-6)


def test_no_spread_gets_the_exact_bound():
    everything = proportion(np.ones(100, dtype=bool), 0)
    nothing = proportion(np.zeros(100, dtype=bool), 0)
    assert (everything.value, everything.high, nothing.value, nothing.low) == (1, 1, 0, 0)
    assert everything.low == pytest.approx(0.025 ** (1 / 100))
    assert nothing.high == pytest.approx(1 - 0.025 ** (1 / 100))
    distinct = distinct_ratio(np.arange(100), np.ones(100, dtype=bool), "labelled")
    assert (distinct.value, distinct.high) == (1, 1)
    assert distinct.low == pytest.approx(0.025 ** (1 / 100))


def test_no_spread_short_of_the_ends_gets_it_to_either_side():
    """Nothing but duplicates, or one molecule, does not make a share certain."""
    gap = 1 - 0.025 ** (1 / 100)
    collapsed = distinct_ratio(np.zeros(100, dtype=np.int64), np.ones(100, dtype=bool), "labelled")
    pairs = distinct_ratio(np.repeat(np.arange(50), 2), np.ones(100, dtype=bool), "samples")
    for found, value in ((collapsed, 0.01), (pairs, 0.5)):
        assert found.value == value
        assert (found.low, found.high) == pytest.approx((value * (1 - gap), value + (1 - value) * gap))
    alone = ratio(np.array([3.0]), np.array([5.0]), 0)
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.6, 0.6 * 0.025, 1 - 0.4 * 0.025))


def test_one_value_has_no_interval():
    """So that it is apart from nothing."""
    many = Estimate(5.0, 4.0, 6.0, 100)
    for found in (mean(np.array([1.5, np.nan]), 0), median(np.array([1.5]), 0)):
        assert (found.value, found.denominator) == (1.5, 1)
        assert math.isnan(found.low)
        assert found.overlaps(many) is None
        assert cell(found, "eV", "evaluated") == "1.500 / 1 evaluated"
    assert median(np.array([np.inf]), 0).value == np.inf


def test_median_counts_failures_as_infinite():
    values = np.array([1.0, 2.0, 3.0, np.inf, np.inf])
    found = median(values, 0)
    assert (found.value, found.high, found.denominator) == (3, np.inf, 5)
    assert median(np.array([1.0, np.inf, np.inf]), 0).value == np.inf
    with pytest.raises(UserError, match=r"1 of 2 values are NaN"):
        median(np.array([1.0, np.nan]), 0)


def test_mean_says_what_it_counted():
    found = mean(np.array([1.0, 3.0, np.inf, np.nan]), 0)
    assert (found.value, found.denominator) == (2, 2)
    assert 1 <= found.low <= found.high <= 3


def test_ratio_resamples_molecules():
    parts, wholes = np.array([10.0, 0.0, 5.0]), np.array([10.0, 10.0, 5.0])
    found = ratio(parts, wholes, 0)
    assert (found.value, found.denominator) == (15 / 25, 25)
    assert found.low == 0
    assert found.high == 1


def test_nothing_to_count():
    none = np.zeros(0)
    assert math.isnan(mean(np.array([np.nan]), 0).value)
    assert mean(none, 0).denominator == 0
    assert math.isnan(median(none, 0).value)
    nobody = distinct_ratio(np.array([-1, -1]), np.zeros(2, dtype=bool), "labelled")
    assert math.isnan(nobody.value)
    assert distinct_ratio(np.array([-1, -1]), np.zeros(2, dtype=bool), "samples").value == 0
    assert distinct_ratio(np.array([5]), np.ones(1, dtype=bool), "labelled") == Estimate(1.0, 0.0, 1.0, 1)
    assert Estimate.missing().overlaps(Estimate(1, 0, 2, 3)) is None


def test_same_seed_same_interval_for_any_chunk(monkeypatch):
    values = np.random.default_rng(4).normal(size=50)
    first = mean(values, 7, 400)
    assert mean(values, 7, 400) == first
    assert mean(values, 8, 400) != first
    monkeypatch.setattr("atomrl.measures.bootstrap.CHUNK", 500)
    assert mean(values, 7, 400) == first


def test_overlap():
    assert Estimate(1, 0, 2, 9).overlaps(Estimate(3, 2, 4, 9))
    assert not Estimate(1, 0, 2, 9).overlaps(Estimate(3, 2.1, np.inf, 9))
