"""Evaluations of several training seeds as Markdown: the base, the trained models, the controls, and what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from atomrl.errors import UserError
from atomrl.metrics.bootstrap import Estimate

COST = ("uniqueness", "validity_x_uniqueness", "novelty")
"""Metrics that a reward can be bought with."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One set of samples, out of an evaluation.json.

    Attributes:
        label: heading.
        estimates: {metric: value, 95 % interval, denominator}; shares as fractions.
        samples: how many.
        sizes: {atoms: samples}.
        elements: {symbol: atoms}.
        failures: {judge: {reason: samples}}.
    """

    label: str
    estimates: Mapping[str, Estimate]
    samples: int
    sizes: Mapping[int, int]
    elements: Mapping[str, int]
    failures: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, table: Json, label: str, heading: str) -> Column:
        """The column that evaluation.json calls `label`."""
        column = table["columns"][label]
        return cls(
            heading,
            {name: _estimate(metric["columns"][label]) for name, metric in table["metrics"].items()},
            column["samples"],
            {int(size): count for size, count in column["sizes"].items()},
            column["elements"],
            column["failures"],
        )


@dataclass(frozen=True)
class Result:
    """A study's evaluations.

    Attributes:
        base: the model before training.
        trained: one column per training seed.
        controls: best-of-N columns.
        metrics: {name: label, unit, counted, better}, in the order of the table.
        rewarded: metrics that training was paid for.
        profile, evaluator, conditions, seeds: of the evaluations.
        base_shift: largest difference of the base's values between the evaluations, relative; 0 if all drew the same.
    """

    base: Column
    trained: tuple[Column, ...]
    controls: tuple[Column, ...]
    metrics: Mapping[str, Mapping[str, str]]
    rewarded: frozenset[str]
    profile: str
    evaluator: str
    conditions: Mapping[str, str]
    seeds: tuple[int, ...]
    base_shift: float

    @classmethod
    def read(cls, tables: Mapping[int, Path], controls: Sequence[tuple[int, Path]]) -> Result:
        """Read evaluation.json by training seed, and (N, evaluation.json) of each control.

        Raises:
            UserError: a file is missing or broken, or the files do not belong into one table.
        """
        paths = [*tables.values(), *(path for _, path in controls)]
        read = {path: _read(path) for path in paths}
        first = read[paths[0]]
        for path in paths[1:]:
            for key in ("profile", "evaluator", "conditions", "rewarded"):
                if read[path][key] != first[key]:
                    raise UserError(f"{path} and {paths[0]} differ in {key}: evaluate both the same way")
            for key in ("samples", "seeds"):
                if read[path]["columns"]["base"][key] != first["columns"]["base"][key]:
                    raise UserError(f"{path} and {paths[0]} differ in {key} of the base: evaluate both the same way")
        bases = [Column.of(table, "base", "base") for table in read.values()]
        return cls(
            bases[0],
            tuple(Column.of(read[path], "trained", f"seed {seed}") for seed, path in tables.items()),
            tuple(Column.of(read[path], f"base best of {n}", f"best of {n}") for n, path in controls),
            {
                name: {k: metric[k] for k in ("label", "unit", "counted", "better")}
                for name, metric in first["metrics"].items()
            },
            frozenset(first["rewarded"]),
            first["profile"],
            first["evaluator"],
            first["conditions"],
            tuple(first["columns"]["base"]["seeds"]),
            max(_shift(bases[0], other) for other in bases),
        )

    def main_table(self) -> str:
        """Base, mean over seeds, controls; how many seeds are apart from the base and from the last control."""
        count = len(self.trained)
        head = ["metric", "rewarded", "base", f"trained, mean of {_counted(count, 'seed')}", "seeds apart from base"]
        head += [control.label for control in self.controls]
        head += [f"seeds apart from {control.label}" for control in self.controls]
        rows = []
        for name, metric in self.metrics.items():
            unit, better = metric["unit"], metric["better"]
            estimates = [column.estimates[name] for column in self.trained]
            row = [_name(metric), "yes" if name in self.rewarded else "", cell(self.base.estimates[name], unit)]
            row += [cell(over_seeds(estimates, unit), unit), apart(estimates, self.base.estimates[name], better)]
            row += [cell(control.estimates[name], unit) for control in self.controls]
            row += [apart(estimates, control.estimates[name], better) for control in self.controls]
            rows.append(row)
        return markdown(head, rows, left=2)

    def seed_table(self) -> str:
        """Each training seed with its intervals and denominators, and the denominators of base and controls."""
        columns = (self.base, *self.trained, *self.controls)
        rows = [
            [_name(metric), *(_counted_cell(column.estimates[name], metric) for column in columns)]
            for name, metric in self.metrics.items()
        ]
        return markdown(["metric", *(column.label for column in columns)], rows)

    def cost_table(self) -> str:
        """Diversity, novelty, sizes and elements."""
        columns = (self.base, *self.trained, *self.controls)
        rows = [
            [_name(self.metrics[name]), *(cell(column.estimates[name], "%") for column in columns)] for name in COST
        ]
        rows.append(["atoms per molecule, mean", *(f"{_mean_size(column):.2f}" for column in columns)])
        for symbol in sorted({symbol for column in columns for symbol in column.elements}):
            shares = [column.elements.get(symbol, 0) / max(1, sum(column.elements.values())) for column in columns]
            rows.append([f"share of {symbol} atoms, %", *(f"{100 * share:.2f}" for share in shares)])
        for judge in sorted({judge for column in columns for judge in column.failures}):
            for reason in sorted({reason for column in columns for reason in column.failures.get(judge, {})}):
                counts = [column.failures.get(judge, {}).get(reason, 0) for column in columns]
                rows.append([f"{judge}: {reason}, molecules", *(str(count) for count in counts)])
        return markdown(["", *(column.label for column in columns)], rows)


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


def apart(estimates: Sequence[Estimate], reference: Estimate, better: str) -> str:
    """How many seeds have an interval that does not touch the reference's, and to which side."""
    far = [estimate for estimate in estimates if estimate.overlaps(reference) is False]
    higher = sum(estimate.value > reference.value for estimate in far)
    sides = {"higher": higher, "lower": len(far) - higher}
    if better != "neither":
        sides = {"better": sides[better], "worse": len(far) - sides[better]}
    counts = [f"{side}: {n} of {len(estimates)}" for side, n in sides.items() if n]
    return ", ".join(counts) or f"none of {len(estimates)}"


def cell(estimate: Estimate, unit: str) -> str:
    """`value [low, high]`; shares in percent."""
    if math.isnan(estimate.value):
        return "-"
    scale, digits = (100, 1) if unit == "%" else (1, 3)
    value, low, high = (f"{scale * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are text."""
    rule = ["---" if place < left else "---:" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)) + "\n"


def _name(metric: Mapping[str, str]) -> str:
    arrow = {"higher": " ↑", "lower": " ↓", "neither": ""}[metric["better"]]
    return f"{metric['label']}{arrow}, {metric['unit']}"


def _counted_cell(estimate: Estimate, metric: Mapping[str, str]) -> str:
    return f"{cell(estimate, metric['unit'])} / {_counted(estimate.denominator, metric['counted'], '')}"


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{plural if count != 1 else ''}"


def _mean_size(column: Column) -> float:
    return sum(size * count for size, count in column.sizes.items()) / max(1, column.samples)


def _shift(one: Column, other: Column) -> float:
    """Largest relative difference of two columns' values."""
    pairs = [(one.estimates[name].value, other.estimates[name].value) for name in one.estimates]
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a != b and math.isfinite(a + b)), default=0.0)


def _estimate(values: Json) -> Estimate:
    """NaN is null there, infinity the string `inf`."""
    value, low, high = (math.nan if values[name] is None else float(values[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, values["denominator"])


def _read(path: Path) -> Json:
    try:
        table: Json = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run the queue without --only-report") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}): delete it and run the queue again") from error
    return table
