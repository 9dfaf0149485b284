"""Numbers as the page has them."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray


def rounded(values: NDArray[Any]) -> list[float | int | None]:
    """Numbers to five digits or to a whole number, null where there is none."""
    return [short(value) for value in values.tolist()]


def short(value: float) -> float | int | None:
    """One of them."""
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return None
    near = float(f"{value:.5g}") if abs(value) < 1e5 else float(round(value))
    return int(near) if near.is_integer() and abs(near) < 1e15 else near
