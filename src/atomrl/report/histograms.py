"""How samples are distributed: sizes and elements of the tables, rings and other numbers of the table of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomrl.report.evaluations import Evaluation, Side
from atomrl.report.rounding import rounded
from atomrl.report.samples import LOWER_IS_BETTER, SideSamples, columns_of

BINS = 30
TAIL = 1.0
"""Percent of all sides' numbers that lie beyond the first bin, and beyond the last one, which count them."""
SHOWN_ELEMENTS = 20
ATOMS, RINGS = "atoms", "rings"
"""The columns of numbers of atoms, which the tables have too, and of rings, which are drawn as bars like these."""


def histograms(
    evaluations: Sequence[Evaluation], sides: Sequence[Side], samples: Sequence[SideSamples | None]
) -> list[dict[str, Any]]:
    """All of them, over all samples: sizes, elements, rings, then the numbers, the one that matters most first."""
    columns = [evaluations[side.evaluations[0]].main.columns[side.label] for side in sides]
    found = [
        _bars("number of atoms", "samples", [column.sizes for column in columns], sorted_by_count=False),
        _bars("elements", "atoms", [column.elements for column in columns], sorted_by_count=True),
        _bars(
            "rings of valid molecules",
            "valid molecules",
            [_rings(of_side) for of_side in samples],
            sorted_by_count=False,
        ),
    ]
    drawn = {ATOMS, RINGS}
    numbers = [column for column in columns_of(samples) if column["kind"] == "number" and column["name"] not in drawn]
    numbers.sort(key=lambda column: column["name"] not in LOWER_IS_BETTER)
    for column in numbers:
        name = column["name"]
        values = [
            None if of_side is None or name not in of_side.columns else np.asarray(of_side.columns[name].values)
            for of_side in samples
        ]
        found.append({"title": name, "about": column["about"], "unit": column["unit"], **_steps(values)})
    return [one for one in found if one["sides"]]


def _rings(samples: SideSamples | None) -> dict[str, int]:
    """{number of rings: valid molecules}; empty for crystals, and where an earlier version did not count them."""
    if samples is None or RINGS not in samples.columns:
        return {}
    values = np.asarray(samples.columns[RINGS].values)
    return Counter(f"{number:.0f}" for number in values[np.isfinite(values)])


def _bars(title: str, counted: str, counts: Sequence[Mapping[str, int]], sorted_by_count: bool) -> dict[str, Any]:
    """Shares of each kind, of all that are counted, for each side that has any."""
    totals: dict[str, int] = {}
    for of_side in counts:
        for kind, count in of_side.items():
            totals[kind] = totals.get(kind, 0) + count
    labels = sorted(totals, key=lambda kind: -totals[kind]) if sorted_by_count else _by_size(totals)
    shown = labels[:SHOWN_ELEMENTS] if sorted_by_count else labels
    sides = [
        {"side": place, "shares": rounded(np.array([of_side.get(kind, 0) / sum(of_side.values()) for kind in shown]))}
        for place, of_side in enumerate(counts)
        if sum(of_side.values())
    ]
    left_out = len(labels) - len(shown)
    return {"title": title, "counted": counted, "labels": shown, "left_out": left_out, "sides": sides}


def _by_size(totals: Mapping[str, int]) -> list[str]:
    """Every number of atoms from the smallest to the largest, without gaps."""
    sizes = [int(kind) for kind in totals]
    return [str(size) for size in range(min(sizes), max(sizes) + 1)] if sizes else []


def _steps(values: Sequence[NDArray[Any] | None]) -> dict[str, Any]:
    """Shares in bins that all sides have in common, of all samples; those without a number are counted beside them."""
    known = [None if of_side is None else of_side[np.isfinite(of_side)].astype(np.float64) for of_side in values]
    pooled = np.concatenate([of_side for of_side in known if of_side is not None] or [np.zeros(0)])
    if not len(pooled):
        return {"edges": [], "sides": []}
    edges = _edges(pooled)
    sides = []
    for place, (of_side, numbers) in enumerate(zip(values, known, strict=True)):
        if of_side is None or numbers is None:
            continue
        counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
        missing = len(of_side) - len(numbers)
        sides.append({"side": place, "shares": rounded(counts / len(of_side)), "missing": missing})
    beyond = [bool((pooled < edges[0]).any()), bool((pooled > edges[-1]).any())]
    return {"edges": rounded(edges), "beyond": beyond, "sides": sides}


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of bins for all but the tails; whole numbers lie in the middle of theirs."""
    low, high = np.percentile(values, [TAIL, 100 - TAIL])
    if (values == np.rint(values)).all() and high - low <= 2 * BINS:
        edges: NDArray[np.float64] = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
        return edges
    return np.linspace(low, high, BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
