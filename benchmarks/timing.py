"""Fair ratios on a machine that is not quiet: the two sides take turns, and the fastest turn of each counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Seconds of two ways to the same result.

    Attributes:
        name: what was done.
        plain: seconds of the plain way, the least of its turns.
        ours: seconds of the package's way, likewise.
        difference: largest difference of their results, relative to the largest value.
        target: the ratio that is asked for; None where it is only shown.
    """

    name: str
    plain: float
    ours: float
    difference: float
    target: float | None = None

    def line(self) -> str:
        """One row of the table."""
        goal = "" if self.target is None else f"  (target {self.target:g}x)"
        ratio = self.plain / self.ours
        return f"{self.name:<46}{self.plain:9.3f}{self.ours:9.3f}{ratio:8.2f}x  {self.difference:.1e}{goal}"


def interleaved(plain: Callable[[], object], ours: Callable[[], object], turns: int) -> tuple[float, float]:
    """Least wall-clock seconds of each over `turns` alternating turns."""
    best = [float("inf"), float("inf")]
    for _ in range(turns):
        for k, work in enumerate((plain, ours)):
            start = time.perf_counter()
            work()
            best[k] = min(best[k], time.perf_counter() - start)
    return best[0], best[1]
