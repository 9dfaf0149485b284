"""Before and after, side by side: a Markdown table for people and the same as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from atomrl.evaluation.definition import Definition, DrawnBy, Scorecard
from atomrl.measures.bootstrap import Estimate
from atomrl.util.errors import UserError

Json = Mapping[str, object]


@dataclass(frozen=True)
class Column:
    """One set of samples.

    Attributes:
        label: heading, e.g. `base`.
        metrics: what it scored.
        seeds: that the samples were drawn with.
        command: that made the samples, so that a reader can make them again.
        time_step: T of the walk that made them: samples of different T do not compare; None: no walk did.
        drawn: walks that they were chosen from, if there were more; 0: they were not drawn from a model.
        scorings: structures that were scored to choose them; None: no score chose them.
        source: where they come from then.
        model: that drew them; None: none did, or nothing says which.
        asked: {name: value} that a conditional model was asked for; it drew the others.
    """

    label: str
    metrics: Scorecard[Any]
    seeds: tuple[int, ...]
    command: str
    time_step: int | None
    drawn: int | None = None
    scorings: int | None = None
    source: str = "the set"
    model: DrawnBy | None = None
    asked: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Columns that may stand in one table; the first is what the others are compared with.

    Attributes:
        columns: at least one, with different labels, of one profile, under the same conditions and evaluator.
        rewarded: names of metrics that training was rewarded for: to get better at these is no surprise.
    """

    columns: tuple[Column, ...]
    rewarded: frozenset[str]

    @classmethod
    def of(cls, columns: Sequence[Column], rewarded: Collection[str] = ()) -> Comparison:
        """Check that the columns can be compared.

        Raises:
            UserError: they cannot, or a rewarded name is no metric.
        """
        labels = [column.label for column in columns]
        if not columns or len(set(labels)) < len(labels):
            raise UserError(f"a table needs one or more columns with different labels, got {labels}")
        known = columns[0].metrics.definitions
        unknown = sorted(set(rewarded) - set(known))
        if unknown:
            raise UserError(f"no metric is called {', '.join(unknown)}: choose from {', '.join(known)}")
        first, *others = (column.metrics for column in columns)
        if any(
            (one.profile, one.evaluator, one.conditions) != (first.profile, first.evaluator, first.conditions)
            for one in others
        ):
            raise UserError(
                f"columns {labels} differ in profile, evaluator or conditions: evaluate them the same way, then compare"
            )
        return cls(tuple(columns), frozenset(rewarded))

    @property
    def definitions(self) -> Mapping[str, Definition]:
        """All metrics of the profile."""
        return self.columns[0].metrics.definitions

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that some column has, in the order of the profile."""
        known = {name for column in self.columns for name in column.metrics.summary}
        return tuple(name for name in self.definitions if name in known)

    def estimate(self, column: Column, name: str) -> Estimate:
        """A column's estimate; missing if the column does not have it."""
        return column.metrics.summary.get(name, Estimate.missing())

    def markdown(self) -> str:
        """The table, and below it what is needed to read and repeat it."""
        others = self.columns[1:]
        first = self.columns[0].label
        head = ["metric", "rewarded", *(column.label for column in self.columns)]
        head += [f"intervals overlap? {first} / {column.label}" for column in others]
        align = ["---", "---", *("---:" for _ in self.columns), *("---" for _ in others)]
        rows = [self._row(name) for name in self.names]
        table = ["| " + " | ".join(cells) + " |" for cells in (head, align, *rows)]
        return "\n".join([*table, "", *self._notes()]) + "\n"

    def as_json(self) -> dict[str, object]:
        """The same for programs. NaN is null, infinity the string `inf`."""
        return {
            "profile": self.columns[0].metrics.profile,
            "evaluator": self.columns[0].metrics.evaluator,
            "conditions": dict(self.columns[0].metrics.conditions),
            "rewarded": sorted(self.rewarded),
            "metrics": {
                name: asdict(self.definitions[name])
                | {"columns": {column.label: json_estimate(self.estimate(column, name)) for column in self.columns}}
                | {"overlaps_first": {column.label: self.overlap(column, name) for column in self.columns[1:]}}
                for name in self.names
            },
            "columns": {column.label: _json_column(column) for column in self.columns},
        }

    def json_text(self) -> str:
        """`as_json` as text."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _row(self, name: str) -> list[str]:
        definition = self.definitions[name]
        cells = [label(definition), "yes" if name in self.rewarded else ""]
        cells += [cell(self.estimate(column, name), definition.unit, definition.counted) for column in self.columns]
        words = {True: "yes", False: "**no**", None: "-"}
        return cells + [words[self.overlap(column, name)] for column in self.columns[1:]]

    def overlap(self, column: Column, name: str) -> bool | None:
        """Whether a column's interval overlaps that of the first; None: one of them has none."""
        return self.estimate(column, name).overlaps(self.estimate(self.columns[0], name))

    def _notes(self) -> list[str]:
        metrics = self.columns[0].metrics
        notes = [
            f"Profile `{metrics.profile}`; energies and forces by {metrics.evaluator}; value [95 % interval] /"
            " denominator, shares in %. Rows marked as rewarded were optimised in training.",
            "",
            *(f"- {name}: {value}" for name, value in metrics.conditions.items()),
        ]
        for column in self.columns:
            failed = ", ".join(
                f"{source} {reason} {count}"
                for source, reasons in column.metrics.failures.items()
                for reason, count in reasons.items()
            )
            notes.append(
                f"- {column.label}: {len(column.metrics.samples)} {walks(column)}, "
                f"{_seeds(column.seeds)}`{column.command}`; failures: {failed or 'none'}"
            )
        return notes


def label(definition: Definition) -> str:
    """A metric as a row names it: what is better, and the unit."""
    arrow = {"higher": " ↑", "lower": " ↓", "neither": ""}[definition.better]
    unit = "" if definition.unit in {"", "%"} else f", {definition.unit}"
    return f"{definition.label}{arrow}{unit}"


def cell(estimate: Estimate, unit: str, counted: str) -> str:
    """An estimate in words: value, interval if there is one, denominator."""
    return f"{value_cell(estimate, unit)} / {estimate.denominator} {counted}"


def value_cell(estimate: Estimate, unit: str) -> str:
    """`value [low, high]`, shares in percent; without an interval if there is none, `-` without a value."""
    if math.isnan(estimate.value):
        return "-"
    scale, digits = (100, 1) if unit == "%" else (1, 3)
    value, low, high = (f"{scale * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def walks(column: Column) -> str:
    """How the samples were drawn."""
    if column.drawn == 0:
        return f"taken from {column.source}, not drawn from a model"
    chosen = "" if column.drawn is None else chosen_of(column.drawn, column.scorings)
    asked = f", asked for {asked_for(column.asked)}" if column.asked else ""
    return f"samples{chosen}, T = {column.time_step}{asked}"


def chosen_of(drawn: int, scorings: int | None) -> str:
    """From how many walks samples were chosen, and by how many scorings."""
    return f" of {drawn:,} drawn" + ("" if scorings is None else f", chosen by {scorings:,} scorings")


def asked_for(values: Mapping[str, str | float]) -> str:
    """What a conditional model was asked for, as it is typed."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}, " if seeds else ""


def _json_column(column: Column) -> Json:
    metrics = column.metrics
    return {
        "samples": len(metrics.samples),
        "drawn": len(metrics.samples) if column.drawn is None else column.drawn,
        "scorings": column.scorings,
        "seeds": list(column.seeds),
        "command": column.command,
        "model": None if column.model is None else asdict(column.model),
        "time_step": None if column.drawn == 0 else column.time_step,
        "asked": {} if column.drawn == 0 else dict(column.asked),
        "sizes": {str(size): count for size, count in metrics.sizes.items()},
        "elements": dict(metrics.elements),
        "failures": {source: dict(reasons) for source, reasons in metrics.failures.items()},
    }


def json_estimate(estimate: Estimate) -> Json:
    """As JSON has it."""
    return {name: json_number(number) for name, number in asdict(estimate).items()}


def json_number(number: float) -> float | str | None:
    """As JSON has it: NaN is null, infinity a text."""
    if math.isnan(number):
        return None
    return str(number) if math.isinf(number) else number
