"""Evaluations of several training seeds as Markdown: the base, the trained models, the controls, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atomrl.evaluation.definition import Definition
from atomrl.evaluation.table import value_cell
from atomrl.evaluation.table_file import TableFile, read_table
from atomrl.measures.bootstrap import Estimate
from atomrl.util.errors import UserError
from studies.cells import apart, counted, counted_cell, markdown, over_seeds, row_label
from studies.subjects import Subject

ELEMENTS = 12
"""Elements with a row of their own: those whose share moved most."""


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

    def shares(self) -> dict[str, float]:
        """{symbol: share of all atoms}."""
        atoms = max(1, sum(self.elements.values()))
        return {symbol: count / atoms for symbol, count in self.elements.items()}

    def effective_elements(self) -> float:
        """How many elements, were they equally frequent: exp of the entropy of the shares."""
        return math.exp(-sum(share * math.log(share) for share in self.shares().values() if share))

    @classmethod
    def of(cls, table: TableFile, name: str, heading: str) -> Column:
        """The column that a table calls `name`.

        Raises:
            UserError: it has none.
        """
        if name not in table.columns:
            raise UserError(f"an evaluation has no column {name}, but {', '.join(table.columns)}: evaluate again")
        column = table.columns[name]
        return cls(
            heading,
            {key: metric.columns[name].estimate() for key, metric in table.metrics.items() if name in metric.columns},
            column.samples,
            {int(size): count for size, count in column.sizes.items()},
            column.elements,
            column.failures,
        )


@dataclass(frozen=True)
class SeedResult:
    """A study's evaluations, of one table of each: the main one or a further one.

    Attributes:
        base: the model before training.
        trained: one column per training seed.
        controls: best-of-N columns.
        metrics: in the order of the table.
        rewarded: metrics that training was paid for.
        profile, evaluator, conditions, seeds: of the evaluations.
        time_step: T of their walks.
        base_shift: largest difference of the base's values between the evaluations, relative; 0 if all drew the same.
    """

    base: Column
    trained: tuple[Column, ...]
    controls: tuple[Column, ...]
    metrics: Mapping[str, Definition]
    rewarded: frozenset[str]
    profile: str
    evaluator: str
    conditions: Mapping[str, str]
    seeds: tuple[int, ...]
    time_step: int | None
    base_shift: float

    @classmethod
    def read(cls, tables: Mapping[int, Path], controls: Sequence[tuple[int, Path]]) -> SeedResult:
        """Read a table by training seed, and (N, table) of each control.

        Raises:
            UserError: a file is missing or broken, or the files do not belong into one table.
        """
        paths = [*tables.values(), *(path for _, path in controls)]
        read = {path: _read(path) for path in paths}
        first = read[paths[0]]
        for path in paths[1:]:
            for key in ("profile", "evaluator", "conditions", "rewarded"):
                if getattr(read[path], key) != getattr(first, key):
                    raise UserError(f"{path} and {paths[0]} differ in {key}: evaluate both the same way")
        metrics: dict[str, Definition] = {}
        for name, metric in ((name, metric) for table in read.values() for name, metric in table.metrics.items()):
            metrics.setdefault(name, metric.definition())

        def column(path: Path, name: str, heading: str) -> Column:
            """With every row; what its own table has no row of, e.g. since no sample has such elements, is missing."""
            found = Column.of(read[path], name, heading)
            return replace(found, estimates={key: found.estimates.get(key, Estimate.missing()) for key in metrics})

        bases = [column(path, "base", "base") for path in read]
        for path in paths[1:]:
            for key in ("samples", "seeds", "time_step", "asked"):
                if getattr(read[path].columns["base"], key) != getattr(first.columns["base"], key):
                    raise UserError(f"{path} and {paths[0]} differ in {key} of the base: evaluate both the same way")
        return cls(
            bases[0],
            tuple(column(path, "trained", f"seed {seed}") for seed, path in tables.items()),
            tuple(column(path, f"base best of {n}", f"best of {n}") for n, path in controls),
            metrics,
            frozenset(first.rewarded),
            first.profile,
            first.evaluator,
            first.conditions,
            tuple(first.columns["base"].seeds),
            first.columns["base"].time_step,
            max(shift(bases[0], other) for other in bases),
        )

    def main_table(self) -> str:
        """Base, mean over seeds, controls; how many seeds are apart from the base and from the last control."""
        count = len(self.trained)
        head = ["metric", "rewarded", "base", f"trained, mean of {counted(count, 'seed')}", "seeds apart from base"]
        head += [control.label for control in self.controls]
        head += [f"seeds apart from {control.label}" for control in self.controls]
        rows = []
        for name, metric in self.metrics.items():
            unit, better = metric.unit, metric.better
            base, estimates = self.base.estimates[name], [column.estimates[name] for column in self.trained]
            row = [row_label(metric), "yes" if name in self.rewarded else "", value_cell(base, unit)]
            row += [value_cell(over_seeds(estimates, unit), unit), apart(estimates, [base] * count, better)]
            row += [value_cell(control.estimates[name], unit) for control in self.controls]
            row += [apart(estimates, [control.estimates[name]] * count, better) for control in self.controls]
            rows.append(row)
        return markdown(head, rows, left=2)

    def seed_table(self) -> str:
        """Each training seed with its intervals and denominators, and the denominators of base and controls."""
        columns = (self.base, *self.trained, *self.controls)
        rows = [
            [row_label(metric), *(counted_cell(column.estimates[name], metric) for column in columns)]
            for name, metric in self.metrics.items()
        ]
        return markdown(["metric", *(column.label for column in columns)], rows)

    def cost_table(self, subject: Subject) -> str:
        """Diversity, novelty, sizes, elements, failures."""
        columns = (self.base, *self.trained, *self.controls)
        rows = []
        for name in (name for name in subject.cost if name in self.metrics):
            metric = self.metrics[name]
            rows.append([row_label(metric), *(value_cell(column.estimates[name], metric.unit) for column in columns)])
        rows.append([f"atoms per {subject.one}, mean", *(f"{_mean_size(column):.2f}" for column in columns)])
        rows += self._element_rows() + self._failure_rows(subject)
        return markdown(["", *(column.label for column in columns)], rows)

    def failure_table(self, subject: Subject) -> str:
        """Samples without an answer, by judge and reason; empty if there are none."""
        rows = self._failure_rows(subject)
        head = ["", *(column.label for column in (self.base, *self.trained, *self.controls))]
        return markdown(head, rows) if rows else ""

    def moved_elements(self) -> tuple[str, ...]:
        """All elements, those first whose share the trainings moved most."""
        columns = [column.shares() for column in (self.base, *self.trained)]
        base, *trained = columns

        def moved(symbol: str) -> float:
            return abs(sum(shares.get(symbol, 0.0) for shares in trained) / len(trained) - base.get(symbol, 0.0))

        found = {symbol for column in (self.base, *self.trained, *self.controls) for symbol in column.elements}
        return tuple(sorted(found, key=lambda symbol: (-moved(symbol), symbol)))

    def _element_rows(self) -> list[list[str]]:
        """Shares of the elements that moved most; of all others together, and their number, if there are others."""
        columns = (self.base, *self.trained, *self.controls)
        shares = [column.shares() for column in columns]
        elements = self.moved_elements()
        rows = [
            [f"share of {symbol} atoms, %", *(f"{100 * share.get(symbol, 0):.2f}" for share in shares)]
            for symbol in sorted(elements[:ELEMENTS])
        ]
        if others := elements[ELEMENTS:]:
            sums = (sum(share.get(symbol, 0) for symbol in others) for share in shares)
            rows.append([f"share of the {len(others)} other elements, %", *(f"{100 * total:.2f}" for total in sums)])
            numbers = (f"{column.effective_elements():.1f}" for column in columns)
            rows.append(["effective number of elements", *numbers])
        return rows

    def _failure_rows(self, subject: Subject) -> list[list[str]]:
        """By judge and reason."""
        columns = (self.base, *self.trained, *self.controls)
        rows = []
        for judge in sorted({judge for column in columns for judge in column.failures}):
            for reason in sorted({reason for column in columns for reason in column.failures.get(judge, {})}):
                counts = [column.failures.get(judge, {}).get(reason, 0) for column in columns]
                rows.append([f"{judge}: {reason}, {subject.noun}", *(str(count) for count in counts)])
        return rows


def _mean_size(column: Column) -> float:
    return sum(size * count for size, count in column.sizes.items()) / max(1, column.samples)


def shift(one: Column, other: Column) -> float:
    """Largest relative difference of two columns' values, of the metrics that both have."""
    names = one.estimates.keys() & other.estimates.keys()
    pairs = [(one.estimates[name].value, other.estimates[name].value) for name in names]
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a != b and math.isfinite(a + b)), default=0.0)


def _read(path: Path) -> TableFile:
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the queue without --only-report")
    return read_table(path)
