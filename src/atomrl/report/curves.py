"""The logs of runs as curves: a series of points for each number that is logged, thinned where there are many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomrl.report.rounding import rounded
from atomrl.util.errors import UserError
from atomrl.util.files import read_json_lines

ITERATION = "iteration"

FIRST = (
    "raw_reward",
    "reward",
    "val/reward",
    "molecule_stability",
    "rdkit_validity",
    "validity_x_uniqueness",
    "rms_force",
    "e_above_hull",
    "unique",
    "novel",
    "energy_per_atom",
    "composition_validity",
    "sound_cells",
    "effective_elements",
    "grad_norm",
)
"""Numbers that a reader looks at first, of molecules and of crystals."""

SHOWN = 8
"""How many of them are shown at once; all others are a click away."""

POINTS, FEWEST = 250_000, 50
"""Points of all curves together; of one curve, as few as it gets."""
MOST = 600
"""Points of one curve: more than a screen tells apart."""

COUNTED_WITH = {"failed_": "failed", "share_": "mean_atoms"}
"""How the names of numbers begin that stand in a line only where they are not zero, and the number beside which they
were counted: {start: that number}. Shares do so in logs of earlier versions, and of models that name no elements."""

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Iterations and values, (P,) each; values are finite."""


def read_series(path: Path) -> dict[str, Series]:
    """The numbers of a log by name, in its order; what a line leaves out because there was none of it is zero.

    Raises:
        UserError: the file cannot be read, or a line has no number of an iteration.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    rows = read_json_lines(path)
    sometimes = {
        name: beside for row in rows for name in row for start, beside in COUNTED_WITH.items() if name.startswith(start)
    }
    for number, row in enumerate(rows, start=1):
        iteration = _number(row.get(ITERATION))
        if iteration is None:
            raise UserError(f"{path}: line {number} has no number of its iteration: is it another file?")
        zeros = {name: 0.0 for name, beside in sometimes.items() if beside in row and name not in row}
        for name, value in (row | zeros).items():
            found = _number(value)
            if name != ITERATION and found is not None:
                points.setdefault(name, []).append((iteration, found))
    return {name: (np.array(found)[:, 0], np.array(found)[:, 1]) for name, found in points.items()}


def thinned(series: Series, most: int) -> tuple[Series, int]:
    """At most so many points, each the mean of as many neighbours; and how many these are."""
    each = math.ceil(len(series[0]) / most)
    if each <= 1:
        return series, 1
    starts = np.arange(0, len(series[0]), each)
    counts = np.diff([*starts, len(series[0])])
    iterations, values = (np.add.reduceat(part, starts) / counts for part in series)
    return (iterations, values), each


def curves(logs: Sequence[Mapping[str, Series]]) -> list[dict[str, Any]]:
    """What the page draws: of each number its name, whether it is shown first, and a line for each run that has it.

    Args:
        logs: of each run what `read_series` returns; empty for a source without a log.
    """
    names = list(dict.fromkeys(name for log in logs for name in log))
    first = [name for name in FIRST if name in names][:SHOWN]
    most = max(FEWEST, min(MOST, POINTS // max(1, sum(map(len, logs)))))
    found = []
    for name in [*first, *(name for name in names if name not in first)]:
        lines = []
        for place, log in enumerate(logs):
            if name in log:
                (iterations, values), each = thinned(log[name], most)
                lines.append({"run": place, "x": rounded(iterations), "y": rounded(values), "each": each})
        found.append({"name": name, "first": name in first, "lines": lines})
    return found


def _number(value: object) -> float | None:
    """A finite number, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
