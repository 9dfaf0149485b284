"""Fair ratios on a machine that is not quiet: the two sides take turns, and the fastest turn of each counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""On a busy machine `cpu` with one thread tells more: it leaves out the time in which others had the processor."""


@dataclass(frozen=True)
class Ratio:
    """Seconds of two ways to the same result.

    Attributes:
        name: what was done.
        plain: seconds of the plain way, the least of its turns.
        ours: seconds of the package's way, likewise.
        target: the ratio that is asked for; None where it is only shown.
        agreement: how far the two results are apart, in words.
    """

    name: str
    plain: float
    ours: float
    target: float | None = None
    agreement: str = ""

    @property
    def ratio(self) -> float:
        """How many times as fast as the plain way."""
        return self.plain / self.ours

    def line(self) -> str:
        """One row of the table under `HEADER`."""
        goal = "" if self.target is None else f"{self.target:g}x"
        return f"{self.name:<40}{self.plain:9.3f}{self.ours:9.3f}{self.ratio:8.2f}x{goal:>8}  {self.agreement}"


HEADER = f"{'':<40}{'plain/s':>9}{'ours/s':>9}{'ratio':>9}{'target':>8}  results differ by"


def interleaved(
    plain: Callable[[], object], ours: Callable[[], object], turns: int, clock: str = "wall"
) -> tuple[float, float]:
    """Least seconds of each over `turns` alternating turns, by one of `CLOCKS`."""
    now = CLOCKS[clock]
    best = [float("inf"), float("inf")]
    for _ in range(turns):
        for k, work in enumerate((plain, ours)):
            start = now()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # a GPU still computes when its calls have returned
            best[k] = min(best[k], now() - start)
    return best[0], best[1]
