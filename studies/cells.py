"""Estimates as cells of a Markdown table, means over training seeds, and whether seeds are apart from something."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from atomrl.evaluation.definition import Definition
from atomrl.evaluation.table import label, value_cell
from atomrl.measures.bootstrap import Estimate


def over_seeds(estimates: Sequence[Estimate], unit: str) -> Estimate:
    """Mean over training seeds with its 95 % t interval; the denominator is the number of seeds.

    No interval (NaN) for one seed, or for seeds without any spread; nothing at all if a seed has no finite value,
    since the mean of the others would flatter.
    """
    values = np.array([estimate.value for estimate in estimates])
    count = len(values)
    if not np.isfinite(values).all():
        return Estimate.missing()
    mean = float(values.mean())
    if values.min() == values.max():
        return Estimate(mean, math.nan, math.nan, count)
    reach = float(student.ppf(0.975, count - 1)) * float(values.std(ddof=1)) / math.sqrt(count)
    low, high = mean - reach, mean + reach
    if unit == "%":
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(mean, low, high, count)


def apart(estimates: Sequence[Estimate], references: Sequence[Estimate], better: str) -> str:
    """How many seeds have an interval that does not touch its reference's, and to which side; `-` if none is known."""
    pairs = list(zip(estimates, references, strict=True))
    if all(estimate.overlaps(reference) is None for estimate, reference in pairs):
        return "-"
    far = [(estimate, reference) for estimate, reference in pairs if estimate.overlaps(reference) is False]
    higher = sum(estimate.value > reference.value for estimate, reference in far)
    sides = {"higher": higher, "lower": len(far) - higher}
    if better != "neither":
        sides = {"better": sides[better], "worse": len(far) - sides[better]}
    counts = [f"{side}: {n} of {len(estimates)}" for side, n in sides.items() if n]
    return ", ".join(counts) or f"none of {len(estimates)}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are text."""
    rule = ["---" if place < left else "---:" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)) + "\n"


def row_label(metric: Definition) -> str:
    """Name of a metric's row: as in the table of an evaluation, and `%` for a share."""
    return label(metric) + (", %" if metric.unit == "%" else "")


def counted_cell(estimate: Estimate, metric: Definition) -> str:
    """A cell with its denominator."""
    return f"{value_cell(estimate, metric.unit)} / {counted(estimate.denominator, metric.counted, '')}"


def counted(count: int, what: str, plural: str = "s") -> str:
    """`1,000 seeds`."""
    return f"{count:,} {what}{plural if count != 1 else ''}"
