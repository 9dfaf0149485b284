"""95 % intervals of metrics over independent samples.

Means, ratios of sums and medians: percentile bootstrap (Efron 1979), seeded, vectorised.

Distinct counts (uniqueness, novelty) are different: a resample with replacement repeats 37 % of the samples, so its
uniqueness is near 0.63 whatever the data, and a subsample without replacement has fewer duplicates than the whole. Here
the jackknife is used: leave out one sample at a time, which changes the counts in closed form, and take
1.96 standard errors to either side, on the scale arcsin(sqrt(value)) that keeps a share near 0 or 1 inside its range.
It is centred on the measured value and, for such counts, too wide rather than too short (Efron and Stein 1981).

A share whose samples show no spread (all valid, no duplicate, nothing but duplicates) gives neither method anything to
work with; the exact binomial bound is used there: 1 - 0.025 ** (1 / n) of the way to either end of the range. Of a
single value, mean and median have no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atomrl.util.errors import UserError

RESAMPLES = 2000
LEVEL = 0.95
Z_95 = 1.959964
CHUNK = 4_000_000
"""Resampled indices that are held at once."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: NaN if nothing could be counted.
        low: lower end; NaN if there is none.
        high: upper end; may be infinite for a median over failures.
        denominator: what was counted: samples, atoms, valid samples, distinct SMILES.
    """

    value: float
    low: float
    high: float
    denominator: int

    def overlaps(self, other: Estimate) -> bool | None:
        """Whether the two intervals have a point in common; None if one of them is unknown."""
        if any(math.isnan(end) for end in (self.low, self.high, other.low, other.high)):
            return None
        return self.low <= other.high and other.low <= self.high

    @classmethod
    def missing(cls) -> Estimate:
        """Nothing to count."""
        return cls(math.nan, math.nan, math.nan, 0)


def proportion(hits: NDArray[np.bool_], seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Share of samples (B,) for which something holds."""
    return ratio(hits.astype(np.float64), np.ones(len(hits)), seed, resamples)


def ratio(parts: Array, wholes: Array, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Sum of parts / sum of wholes, both (B,), 0 <= part <= whole, e.g. stable atoms / atoms; samples are resampled."""
    total = wholes.sum()
    if total == 0:
        return Estimate.missing()
    value = float(parts.sum() / total)

    def statistic(rows: NDArray[np.int64]) -> Array:
        drawn: Array = parts[rows].sum(1) / np.maximum(wholes[rows].sum(1), 1e-300)
        return drawn

    low, high = _percentiles(statistic, len(parts), seed, resamples)
    return _widened(Estimate(value, low, high, round(total)), len(parts))


def mean(values: Array, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean over the finite values of (B,); the denominator says how many they are, and of one there is no interval."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return _without_interval(finite)
    low, high = _percentiles(lambda rows: np.asarray(finite[rows].mean(1)), len(finite), seed, resamples)
    return Estimate(float(finite.mean()), low, high, len(finite))


def median(values: Array, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Median of (B,), in which an infinite value counts as larger than any other.

    The lower of the two middle values for an even count, so that no average with infinity is taken. Of one value there
    is no interval.

    Raises:
        UserError: a value is NaN: failures must be given as +inf, or left out.
    """
    if np.isnan(values).any():
        raise UserError(
            f"{int(np.isnan(values).sum())} of {len(values)} values are NaN: give failures as +inf to median"
        )
    if len(values) < 2:
        return _without_interval(values)
    middle = (len(values) - 1) // 2
    low, high = _percentiles(
        lambda rows: np.asarray(np.partition(values[rows], middle, axis=1)[:, middle]), len(values), seed, resamples
    )
    return Estimate(float(np.partition(values, middle)[middle]), low, high, len(values))


def distinct_ratio(labels: NDArray[np.int64], counted: NDArray[np.bool_], whole: str) -> Estimate:
    """Distinct labels among samples, with a jackknife interval.

    Args:
        labels: one label for each sample, equal for equal molecules; negative for a sample without one, (B,).
        counted: whether a sample's label counts in the numerator, (B,); equal for samples of one label.
        whole: the denominator: `samples` (all B), `labelled` (samples with a label) or `distinct` (distinct labels).

    Returns:
        Distinct counted labels / the denominator, e.g. uniqueness (all counted, `labelled`) or novelty (`distinct`).
    """
    labelled = labels >= 0
    _, first, inverse, sizes = np.unique(labels[labelled], return_index=True, return_inverse=True, return_counts=True)
    single = np.zeros(len(labels))
    single[labelled] = sizes[inverse] == 1
    top = float(counted[labelled][first].sum())
    bottom = {"samples": float(len(labels)), "labelled": float(labelled.sum()), "distinct": float(len(sizes))}[whole]
    if bottom == 0:
        return Estimate.missing()
    lost = {"samples": np.ones(len(labels)), "labelled": labelled.astype(np.float64), "distinct": single}[whole]
    value, rest = top / bottom, bottom - lost
    left_out = (top - single * counted)[rest > 0] / rest[rest > 0]
    if not len(left_out):
        return Estimate(value, 0.0, 1.0, round(bottom))
    count = len(left_out)
    spread = left_out.max() > left_out.min()  # else a mean may be off by a rounding
    error = math.sqrt((count - 1) / count * float(np.square(left_out - left_out.mean()).sum())) if spread else 0.0
    return _widened(Estimate(value, *_share_interval(value, error), round(bottom)), round(bottom))


def _share_interval(value: float, error: float) -> tuple[float, float]:
    """Interval of a share with a standard error, symmetric in arcsin(sqrt(value)); `value` itself at 0 and 1."""
    if value in {0.0, 1.0}:
        return value, value
    angle = math.asin(math.sqrt(value))
    reach = Z_95 * error / (2 * math.sqrt(value * (1 - value)))
    return math.sin(max(angle - reach, 0.0)) ** 2, math.sin(min(angle + reach, math.pi / 2)) ** 2


def _percentiles(
    statistic: Callable[[NDArray[np.int64]], Array], count: int, seed: int, resamples: int
) -> tuple[float, float]:
    """Ends of the percentile interval of a statistic, which maps rows (R, count) to values (R,)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    step = max(1, CHUNK // count)
    drawn = np.concatenate(
        [
            statistic(rng.integers(count, size=(min(step, resamples - start), count)))
            for start in range(0, resamples, step)
        ]
    )
    # Without interpolation: between a finite and an infinite value there is nothing.
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return float(low), float(high)


def _widened(estimate: Estimate, samples: int) -> Estimate:
    """A share with the exact binomial bound to either side where the samples show no spread."""
    if estimate.low < estimate.high:
        return estimate
    gap = 1 - ((1 - LEVEL) / 2) ** (1 / samples)
    low, high = estimate.value * (1 - gap), estimate.value + (1 - estimate.value) * gap
    return Estimate(estimate.value, low, high, estimate.denominator)


def _without_interval(values: Array) -> Estimate:
    """Of one value or none, which say nothing about what others would be."""
    return Estimate(float(values[0]), math.nan, math.nan, 1) if len(values) else Estimate.missing()
