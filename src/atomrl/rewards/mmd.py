"""Maximum mean discrepancy, and what each sample adds to it.

With kernel k(x, y) = (x.y / d + 1)^3 and d the number of features, the unbiased squared discrepancy of n generated
and m reference rows is

    MMD^2 = sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1))
            - 2 sum_ij k(x_i, y_j) / (n m)

A sample's reward is MMD^2 without it minus MMD^2 with it: positive for a sample that makes the batch more like the
reference. Leaving one out changes the sums by that sample's kernel rows, which are computed once for all samples, and
the reference's own term cancels. Without self pairs a far outlier is not punished for being one: what counts is on
which side of the reference the rest of the batch lies.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_REFERENCES = 50_000
"""More reference rows than this are subsampled."""

BLOCK = 4096
"""Reference rows whose kernel values are in memory at once."""

FEWEST = 3
"""Samples needed to leave one out: two must remain, since a squared discrepancy without self pairs needs a pair."""


def kernel(first: Tensor, second: Tensor) -> Tensor:
    """(x.y / d + 1)^3 of all pairs of rows of (n, d) and (m, d), (n, m)."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def subsample(reference: Tensor, limit: int = MAX_REFERENCES, seed: int = 0) -> Tensor:
    """At most `limit` rows of (m, d), the same ones each time, in their order."""
    if len(reference) <= limit:
        return reference
    rows = torch.randperm(len(reference), generator=torch.Generator().manual_seed(seed))[:limit]
    return reference[rows.sort().values.to(reference.device)]


def squared_mmd(generated: Tensor, reference: Tensor) -> Tensor:
    """Unbiased squared discrepancy, a float64 number; NaN if either side has fewer than two rows.

    Args:
        generated: (n, d).
        reference: (m, d).
    """
    n, m = len(generated), len(reference)
    if min(n, m) < FEWEST - 1:
        return torch.full((), torch.nan, dtype=torch.float64)
    among, across = _kernel_sums(generated, reference)
    between = among.new_zeros(())
    for block in reference.split(BLOCK):
        rows = block.double()
        between = between + _sums_with(rows, reference).sum() - _self_kernel(rows).sum()
    return among.sum() / (n * (n - 1)) + between / (m * (m - 1)) - 2 * across.sum() / (n * m)


def leave_one_out(generated: Tensor, reference: Tensor) -> Tensor:
    """MMD^2 without each sample minus MMD^2 with all, (n,) float64; NaN for fewer than three samples.

    Args:
        generated: features of the samples, (n, d).
        reference: features of the reference, (m, d).
    """
    n, m = len(generated), len(reference)
    if n < FEWEST or m == 0:
        return torch.full((n,), torch.nan, dtype=torch.float64, device=generated.device)
    among, across = _kernel_sums(generated, reference)
    everyone = among.sum() / (n * (n - 1)) - 2 * across.sum() / (n * m)
    # A pair (i, j) is counted from both sides, so leaving i out takes its row and its column.
    others = (among.sum() - 2 * among) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / ((n - 1) * m)
    return others - everyone


def _kernel_sums(generated: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample, the sum of its kernel values with the other samples and with the reference, (n,) float64."""
    samples = generated.double()
    among = kernel(samples, samples).sum(1) - _self_kernel(samples)
    return among, _sums_with(samples, reference)


def _sums_with(rows: Tensor, reference: Tensor) -> Tensor:
    """Sums of kernel values of (n, d) float64 with the reference (m, d), a block of it at a time, (n,)."""
    sums = rows.new_zeros(len(rows))
    for block in reference.split(BLOCK):
        sums = sums + kernel(rows, block.double()).sum(1)
    return sums


def _self_kernel(rows: Tensor) -> Tensor:
    """Kernel value of each row with itself, (n,)."""
    return (rows.square().sum(1) / rows.shape[1] + 1) ** 3
