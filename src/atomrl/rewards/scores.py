"""Values of which some may be missing, each with a reason."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What `compute` may return instead of a tensor, if some samples have no value.

    Attributes:
        values: (B,); NaN where there is none.
        reasons: why, one entry per sample, None where there is a value.
    """

    values: Tensor
    reasons: tuple[str | None, ...]
