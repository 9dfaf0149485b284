"""Best-of-N from an untrained model: the control that any training has to beat at the same scoring budget."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.core.advantages import Groups
from atomrl.util.errors import UserError


def best_of_n(scores: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Rows of the best sample in each block of `n` consecutive ones.

    Args:
        scores: higher is better, NaN where scoring failed, (M,) with M a multiple of n.
        n: draws of which one is kept.

    Returns:
        (M / n,) int64. A failed sample is kept only where all of its block failed (then the first): the control
        pays for failures like any other sample.

    Raises:
        UserError: n < 1 or the scores do not divide into blocks.
    """
    if n < 1 or len(scores) % n:
        raise UserError(f"cannot cut {len(scores)} scores into blocks of {n}: give a multiple of n")
    best: NDArray[np.int64] = Groups.of(torch.arange(len(scores)) // n).best(torch.from_numpy(scores)).numpy()
    return best
