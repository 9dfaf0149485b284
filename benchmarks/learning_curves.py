"""What the learning benchmark compares: the curve of a training, and a choice from the base.

Both are read from what the steps of the queue left behind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomrl.util.files import write_json
from benchmarks.best_of_draws import STEERED, cost
from benchmarks.learning_arms import WINDOW, Arm, Comparison
from studies.curves import read_log

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """A way to choose from the base.

    Attributes:
        name: of its row.
        value: mean of the measure.
        scorings, calls: for each sample that is kept.
    """

    name: str
    value: float
    scorings: int
    calls: int


@dataclass(frozen=True)
class Curve:
    """What one training did, or the mean of several.

    Attributes:
        arm: which.
        seed: of the training; None: the mean over several.
        values: of the measure, by iteration.
        scorings: after each iteration, so many samples have been scored.
        shares: of the comparison's further keys, means over the last `WINDOW` iterations, %; NaN if not logged.
        calls: of the network per scored sample.
        gradient: largest norm before the clip.
        minutes: in rollouts and updates.
    """

    arm: Arm
    seed: int | None
    values: Array
    scorings: Array
    shares: Array
    calls: float
    gradient: float
    minutes: float

    @property
    def means(self) -> Array:
        """Means over the last `WINDOW` iterations, by iteration from the first that has as many."""
        size = min(WINDOW, len(self.values))
        return np.convolve(self.values, np.ones(size) / size, "valid")

    def scorings_to(self, value: float, better: str) -> float:
        """Scorings after which the mean over `WINDOW` iterations reached a value; infinite if it never did."""
        reached = self.means >= value if better == "higher" else self.means <= value
        return float(self.scorings[len(self.values) - len(self.means) :][reached.argmax()]) if reached.any() else inf


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of trainings of one arm by different seeds, as long as the shortest.

    Its gradient is the largest of all.
    """
    shortest = min(len(curve.values) for curve in curves)
    return replace(
        curves[0],
        seed=None,
        values=np.mean([curve.values[:shortest] for curve in curves], axis=0),
        scorings=curves[0].scorings[:shortest],
        shares=np.mean([curve.shares for curve in curves], axis=0),
        gradient=max(curve.gradient for curve in curves),
        minutes=sum(curve.minutes for curve in curves) / len(curves),
    )


def read_curve(arm: Arm, seed: int, comparison: Comparison, folder: Path) -> Curve | None:
    """The log of a training; None for one that failed in its first iteration."""
    path = folder / f"{arm.folder}-{seed}" / "metrics.jsonl"
    rows = read_log(path)[: comparison.iterations] if path.is_file() else []
    if not rows:
        return None
    values = [nan if row.get(comparison.measure) is None else row[comparison.measure] for row in rows]
    shares = 100 * np.array([_mean(rows[-WINDOW:], key) for key in comparison.shares])
    seconds = sum(row["seconds_rollout"] + row["seconds_update"] for row in rows)
    scorings = comparison.samples * np.arange(1.0, len(rows) + 1)
    calls = _calls(path.with_name("calls.json"), arm.config, comparison.overrides(arm))
    gradient = max(row["grad_norm"] for row in rows)
    return Curve(arm, seed, comparison.scale * np.array(values), scorings, shares, calls, gradient, seconds / 60)


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Of a logged number; NaN where there is none."""
    known = [row[key] for row in rows if row.get(key) is not None]
    return sum(known) / len(known) if known else nan


def _calls(path: Path, config: str, overrides: Sequence[str]) -> float:
    """Calls of the network per scored sample, counted once and kept beside the run."""
    if not path.is_file():
        from benchmarks.network_calls import calls_per_sample  # noqa: PLC0415 - torch, which the queue does not need

        write_json(path, {"calls": calls_per_sample(config, overrides)})
    return float(json.loads(path.read_text())["calls"])


def read_chosen(path: Path, comparison: Comparison) -> tuple[Chosen, ...]:
    """What was chosen from the base."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = []
    for key in (*map(str, comparison.best_of), *(f"{STEERED}{n}" for n in comparison.steered)):
        value = comparison.scale * float(np.nanmean([row[key] for row in rows]))
        name = f"{key} particles" if key.startswith(STEERED) else f"best of {key}"
        found.append(Chosen(name, value, *cost(key, comparison.time_step)))
    return tuple(found)
