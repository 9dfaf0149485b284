"""Training curves as SVG: a thin line per seed, a running mean over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from atomrl.util.errors import UserError
from atomrl.util.figures import svg
from atomrl.util.files import read_json_lines
from studies.subjects import PlotPanel

WINDOW = 9
"""Iterations of the running mean."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's, which colour-blind readers can tell apart."""


Array = NDArray[np.float64]


def draw(logs: Mapping[int, Path], output: Path, panels: Sequence[PlotPanel]) -> None:
    """Draw metrics.jsonl of each training seed. The same logs give the same bytes.

    Args:
        logs: metrics.jsonl by training seed.
        output: SVG file.
        panels: of these, what was measured is drawn.

    Raises:
        UserError: a log is missing or empty, or the file cannot be written.
    """
    seeds = list(logs)
    rows = [read_log(path) for path in logs.values()]
    drawn = [panel for panel in panels if any(row.get(panel.key) is not None for log in rows for row in log)]
    if not drawn:
        raise UserError(f"{', '.join(map(str, logs.values()))}: none of {', '.join(p.key for p in panels)} is logged")
    height = max(2, math.ceil((len(drawn) + 1) / 3))  # rows of three; the legend takes a place too
    with svg(output, 10, 2.7 * height) as figure:
        axes = list(figure.subplots(height, 3, squeeze=False).flat)
        for panel, place in zip(drawn, axes, strict=False):
            _fill(place, panel, series(rows, panel), seeds)
        for place in axes[len(drawn) :]:
            place.axis("off")
        axes[len(drawn)].legend(*axes[0].get_legend_handles_labels(), loc="center", frameon=False)


def series(rows: list[list[dict[str, float | None]]], panel: PlotPanel) -> Array:
    """A logged number by seed and iteration, (seeds, iterations); NaN where there is none."""
    length = max(int(row["iteration"] or 0) for log in rows for row in log) + 1
    values = np.full((len(rows), length), np.nan)
    for place, log in enumerate(rows):
        for row in log:
            number = row.get(panel.key)
            values[place, int(row["iteration"] or 0)] = math.nan if number is None else panel.scale * number
    return values


def running_mean(values: Array, window: int = WINDOW) -> Array:
    """Mean over seeds and over a centred window of iterations, (seeds, iterations) -> (iterations,).

    At the ends the window is cut; what is missing does not count; NaN where nothing is left.
    """
    known = np.isfinite(values)
    half = window // 2
    sums = np.pad(np.where(known, values, 0).sum(0), half)
    counts = np.pad(known.sum(0).astype(np.float64), half)
    kernel = np.ones(2 * half + 1)
    total, number = np.convolve(sums, kernel, "valid"), np.convolve(counts, kernel, "valid")
    mean: Array = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return mean


def _fill(axes: Axes, panel: PlotPanel, values: Array, seeds: list[int]) -> None:
    """One panel; every line has an id, so that a program finds it in the SVG."""
    iterations = np.arange(values.shape[1])
    for place, seed in enumerate(seeds):
        known = np.isfinite(values[place])
        axes.plot(
            iterations[known],
            values[place][known],
            color=COLOURS[place % len(COLOURS)],
            linewidth=0.7,
            alpha=0.7,
            label=f"seed {seed}",
            gid=f"{panel.key}-seed-{seed}",
        )
    mean = running_mean(values)
    label = f"running mean, {WINDOW} iterations, all seeds"
    axes.plot(iterations, mean, color="black", linewidth=1.8, label=label, gid=f"{panel.key}-mean")
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel("iteration")
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; the last one may be cut short by a kill."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the queue without --only-report")
    rows = read_json_lines(path)
    if not rows:
        raise UserError(f"{path} is empty: no iteration has ended yet")
    return rows
