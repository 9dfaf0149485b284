"""The Fréchet distance of two sets of features, and the diversity that follows from it.

For Gaussians with means m, w and covariances C, D (Dowson and Landau 1982; as for images, Heusel et al. 2017,
arXiv:1706.08500, the square is called the distance):

    d = |m - w|^2 + tr(C + D - 2 (C D)^(1/2))

It is biased upwards for few samples, by more the more features there are: compare sets of equal size only.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from atomrl.measures.bootstrap import Z_95, Estimate
from atomrl.util.errors import UserError

BLOCKS = 20
"""Parts of the samples that are left out in turn."""

Array = NDArray[np.float64]


def frechet_distance(first: Array, second: Array) -> float:
    """Of Gaussians with the means and covariances (n - 1) of (n, d) and (m, d), in squared units of the features.

    Raises:
        UserError: fewer than two rows, different widths, or numbers that are not finite.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise UserError(
            f"no Fréchet distance of features {first.shape} and {second.shape}: give two rows or more, of equal width"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("features that are not finite have no Fréchet distance: leave these rows out")
    return _distance(_moments(first), _moments(second))


def diversity(samples: Array, reference: Array, seed: int = 0) -> Estimate:
    """1 / (1 + Fréchet distance) of features (n, d) to a reference (m, d), with a 95 % interval.

    The interval is value +- 1.96 standard errors of the jackknife that leaves out one of `BLOCKS` random blocks of
    samples in turn (a bootstrap would repeat samples, and so see less diversity than there is), cut to [0, 1]. The
    reference counts as fixed. The denominator is n; without two samples there is no value.

    Raises:
        UserError: as `frechet_distance`.
    """
    if len(samples) < 2:
        return Estimate(math.nan, math.nan, math.nan, len(samples))
    value = 1 / (1 + frechet_distance(samples, reference))
    if len(samples) < 3:
        return Estimate(value, 0.0, 1.0, len(samples))
    fixed = _moments(reference)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(samples))
    blocks = np.array_split(order, min(BLOCKS, len(samples)))
    left = np.array([1 / (1 + _distance(_moments(np.delete(samples, block, axis=0)), fixed)) for block in blocks])
    reach = Z_95 * math.sqrt((len(blocks) - 1) / len(blocks) * float(np.square(left - left.mean()).sum()))
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach), len(samples))


def _moments(rows: Array) -> tuple[Array, Array]:
    """Mean (d,) and covariance (d, d)."""
    return rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False))


def _distance(first: tuple[Array, Array], second: tuple[Array, Array]) -> float:
    """Of two means and covariances; rounding below 0 is 0.

    tr (C D)^(1/2) is the sum of the singular values of C^(1/2) D^(1/2), which exist for singular covariances too.
    """
    (mean, covariance), (other_mean, other_covariance) = first, second
    shared = np.linalg.svd(_root(covariance) @ _root(other_covariance), compute_uv=False).sum()
    spread = np.trace(covariance) + np.trace(other_covariance) - 2 * shared
    return max(0.0, float(np.square(mean - other_mean).sum() + spread))


def _root(covariance: Array) -> Array:
    """The symmetric root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    rooted: Array = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return rooted
