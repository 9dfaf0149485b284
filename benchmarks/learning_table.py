"""The table of the learning benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import inf, isnan

import numpy as np

from benchmarks.learning_arms import WINDOW, Comparison
from benchmarks.learning_curves import Chosen, Curve, mean_curve
from studies.queue import duration

REACH = ("best of 2", "best of 4")
"""Levels that arms are asked for."""


def table(curves: Sequence[Curve], chosen: Sequence[Chosen], comparison: Comparison) -> list[str]:
    """Rows for the trainings, then for what is chosen from the base.

    Args:
        curves: of the trainings, the seeds of an arm one after the other; their mean has a row too.
        chosen: from the base.
        comparison: what they are.
    """
    goals = [one for one in chosen if one.name in REACH]
    head = [
        f"{comparison.title}{comparison.unit}, last {WINDOW}",
        f"best {WINDOW}",
        *(f"{title}, %, last {WINDOW}" for title in comparison.shares.values()),
        *(f"scorings to {goal.name} ({goal.value:.3g}{comparison.unit})" for goal in goals),
        "scorings",
        "network calls",
        "largest gradient",
        "pays from",
        "time",
    ]
    lines = [_row("", head), _row("---", ["---"] * len(head))]
    for arm, its in groupby(curves, lambda curve: curve.arm):
        seeds = list(its)
        if len(seeds) > 1:
            cells = _cells(mean_curve(seeds), chosen, goals, comparison)
            lines.append(_row(f"{arm.name}, mean of {len(seeds)} seeds", cells))
        lines += [_row(_named(one, comparison), _cells(one, chosen, goals, comparison)) for one in seeds]
    empty = [""] * (1 + len(comparison.shares) + len(goals))
    for one in chosen:
        costs = (f"{one.scorings} a sample", f"{one.calls} a sample")
        lines.append(_row(one.name, [f"{one.value:.3g}", *empty, *costs, "", "", ""]))
    return lines


def _named(curve: Curve, comparison: Comparison) -> str:
    """Name of a training's row."""
    done, asked = len(curve.values), comparison.iterations
    early = f" (failed after {done} of {asked} iterations)" if done < asked else ""
    return f"{curve.arm.name}, seed {curve.seed}{early}"


def _cells(curve: Curve, chosen: Sequence[Chosen], goals: Sequence[Chosen], comparison: Comparison) -> list[str]:
    """A training's, or those of a mean."""
    means, scored = curve.means, curve.scorings[-1]
    best = np.fmax if comparison.better == "higher" else np.fmin  # without windows in which no sample had a score
    return [
        f"{means[-1]:.3g}",
        f"{best.reduce(means):.3g}",
        *("not logged" if isnan(share) else f"{share:.3g}" for share in curve.shares),
        *(_count(curve.scorings_to(goal.value, comparison.better)) for goal in goals),
        f"{scored:,.0f}",
        f"{scored * curve.calls:,.0f}",
        f"{curve.gradient:.2g}",
        pays_from(curve, chosen, comparison),
        duration(60 * curve.minutes),
    ]


def pays_from(curve: Curve, chosen: Sequence[Chosen], comparison: Comparison) -> str:
    """From how many wanted samples on best-of-N needs more scorings than the training for the same measure.

    Never where the training is not better than the base, of which the first of `chosen` keeps every sample; unknown
    where the measure is, since no sample of an iteration had a score.
    """
    if isnan(curve.means[-1]):
        return "unknown"
    sign = 1 if comparison.better == "higher" else -1
    if chosen and sign * curve.means[-1] <= sign * chosen[0].value:
        return "never"
    reached, tried = sign * curve.means[-1], [one for one in chosen if one.name.startswith("best of")]
    enough = [one.scorings for one in tried if sign * one.value >= reached]
    if enough:
        return f"{curve.scorings[-1] / min(enough):,.0f} samples"
    return f"fewer than {curve.scorings[-1] / max(one.scorings for one in tried):,.0f} samples" if tried else ""


def _count(scorings: float) -> str:
    return f"{scorings:,.0f}" if scorings < inf else "not reached"


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"
