"""Rows of batches of nearly equal size: little or no padding, order a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atomrl.util.errors import UserError


def full_batches(count: int, batch_size: int) -> int:
    """Full batches in a set of `count` structures.

    Raises:
        UserError: there is none.
    """
    batches = count // batch_size
    if not batches:
        raise UserError(f"batches of {batch_size} out of {count} structures: make the batches smaller")
    return batches


def sized_rows(
    sizes: NDArray[np.int64], batch_size: int, seed: int, first_step: int = 0
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Endless stream of (step, rows of its batch (batch_size,)), from any step on.

    Epoch after epoch, each drawn anew, sorted by size, cut into full batches, and these shuffled.

    Args:
        sizes: atoms of each structure of the set.
        batch_size: structures per batch.
        seed: of the order.
        first_step: number of the first batch.

    Raises:
        UserError: the set is smaller than a batch.
    """
    steps_per_epoch = full_batches(len(sizes), batch_size)
    epoch, skip = divmod(first_step, steps_per_epoch)
    while True:
        rng = np.random.Generator(np.random.PCG64([seed, epoch]))
        order = rng.permutation(len(sizes))[: steps_per_epoch * batch_size]
        order = order[np.argsort(sizes[order], kind="stable")]
        batches = rng.permutation(order.reshape(-1, batch_size))
        for number in range(skip, steps_per_epoch):
            yield epoch * steps_per_epoch + number, batches[number]
        epoch, skip = epoch + 1, 0
