"""The tables of evaluations as the page shows them: those that may be compared side by side in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atomrl.evaluation.definition import Definition
from atomrl.evaluation.table import asked_for, cell, chosen_of, label
from atomrl.evaluation.table_file import ColumnEntry, TableFile
from atomrl.measures.bootstrap import Estimate
from atomrl.report.evaluations import Evaluation, Side
from atomrl.report.rounding import short


@dataclass(frozen=True)
class _Place:
    """A column of a table on the page.

    Attributes:
        side: its place among the sides.
        label: its heading in the file.
        table: of which file it is.
    """

    side: int
    label: str
    table: TableFile


def tables(evaluations: Sequence[Evaluation], sides: Sequence[Side]) -> list[dict[str, Any]]:
    """All tables: the main ones first, then the others by title; each holds the columns that may be compared."""
    titles = dict.fromkeys(["", *(title for evaluation in evaluations for title in evaluation.further)])
    return [
        _table(title, places)
        for title in titles
        for places in _comparable(
            [
                _Place(number, side.label, table)
                for number, side in enumerate(sides)
                for table in _of([evaluations[place] for place in side.evaluations], title)
                if side.label in table.columns
            ]
        )
    ]


def _of(evaluations: Sequence[Evaluation], title: str) -> list[TableFile]:
    """The tables of a title, the main ones if it is empty; of those that may be compared the first."""
    found: list[TableFile] = []
    for evaluation in evaluations:
        table = evaluation.further.get(title) if title else evaluation.main
        if table is not None and not any(table.comparable(other) for other in found):
            found.append(table)
    return found


def _comparable(places: Sequence[_Place]) -> list[list[_Place]]:
    """Columns that may stand in one table, together."""
    groups: list[list[_Place]] = []
    for place in places:
        group = next((group for group in groups if group[0].table.comparable(place.table)), None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    return groups


def _table(title: str, places: Sequence[_Place]) -> dict[str, Any]:
    """One table."""
    metrics = {name: row for place in places for name, row in place.table.metrics.items()}
    rewarded = {name for place in places for name in place.table.rewarded}
    first = places[0].table
    return {
        "title": title,
        "profile": first.profile,
        "evaluator": first.evaluator,
        "conditions": list(first.conditions.items()),
        "sides": [place.side for place in places],
        "notes": [_note(place.table.columns[place.label]) for place in places],
        "rows": [
            {
                "name": name,
                "label": label(row.definition()),
                "better": row.better,
                "rewarded": name in rewarded,
                "cells": [_cell(place, name, row.definition()) for place in places],
            }
            for name, row in metrics.items()
        ],
    }


def _cell(place: _Place, name: str, definition: Definition) -> dict[str, Any]:
    """An estimate in words and in numbers, and how it differs from that of its own table's first column."""
    row = place.table.metrics.get(name)
    known = {} if row is None else {heading: entry.estimate() for heading, entry in row.columns.items()}
    estimate = known.get(place.label, Estimate.missing())
    first = next(iter(place.table.columns))
    value, _, rest = cell(estimate, definition.unit, definition.counted).partition(" ")
    return {
        "value": value,
        "rest": rest,
        "at": [short(number) for number in (estimate.low, estimate.value, estimate.high)],
        "verdict": _verdict(estimate, known.get(first, Estimate.missing()), definition.better),
    }


def _verdict(estimate: Estimate, first: Estimate, better: str) -> str | None:
    """`better`, `worse`, `higher` or `lower` than the first column; None if the intervals meet or one is unknown."""
    if estimate.overlaps(first) is not False:
        return None
    way = "higher" if estimate.value > first.value else "lower"
    if better == "neither":
        return way
    return "better" if way == better else "worse"


def _note(column: ColumnEntry) -> dict[str, str]:
    """How the samples of a column were drawn, which have no score, and how to make them again."""
    failed = [f"{source} {reason} {count}" for source, of in column.failures.items() for reason, count in of.items()]
    said = [f"{column.samples:,} samples"]
    if column.drawn is not None and column.drawn != column.samples:
        said[0] += chosen_of(column.drawn, column.scorings) if column.drawn else ", not drawn from a model"
    said += [] if column.time_step is None else [f"T = {column.time_step}"]
    said += [f"asked for {asked_for(column.asked)}"] if column.asked else []
    said += [f"seed {', '.join(map(str, column.seeds))}"] if column.seeds else []
    return {"text": ", ".join([*said, f"failed: {'; '.join(failed) or 'none'}"]), "command": column.command}
