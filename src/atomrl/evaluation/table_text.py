"""The table of an evaluation as a terminal shows it: columns aligned, and what they rest on in three lines below."""

from __future__ import annotations

from collections.abc import Sequence

from atomrl.evaluation.table import Column, Comparison, cell, label, walks

REWARDED = "* "
"""Before a metric that training was rewarded for."""

LONGEST = 24
"""Characters of a condition that are shown; hashes and tables of energies are longer."""


def as_text(table: Comparison) -> str:
    """The table, then three lines: how it is read, what was sampled, under which conditions.

    The JSON beside it has all of them in full, with the command of each column.
    """
    first, *others = table.columns
    overlaps = [f"overlaps {first.label}?"] if len(others) == 1 else [f"{column.label} overlaps?" for column in others]
    head = ["", *(column.label for column in table.columns), *overlaps]
    rows = [head, *(_row(table, name) for name in table.names)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [_aligned(row, widths) for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], "", *_notes(table)]) + "\n"


def _row(table: Comparison, name: str) -> list[str]:
    """A metric's cells."""
    definition = table.definitions[name]
    mark = REWARDED if name in table.rewarded else " " * len(REWARDED)
    values = [cell(table.estimate(column, name), definition.unit, "").rstrip() for column in table.columns]
    words = {True: "yes", False: "no", None: "-"}
    return [
        f"{mark}{label(definition)}",
        *values,
        *(words[table.overlap(column, name)] for column in table.columns[1:]),
    ]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells as one line; the metric to the left, all others to the right."""
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]).rstrip()


def _notes(table: Comparison) -> list[str]:
    """The three lines."""
    metrics = table.columns[0].metrics
    rewarded = "; * rewarded in training" if table.rewarded else ""
    conditions = (f"{name} {_short(str(value))}" for name, value in metrics.conditions.items())
    return [
        f"{metrics.profile}, energies and forces by {metrics.evaluator}; value [95 % interval] / denominator, shares "
        f"in %{rewarded}",
        "; ".join(map(_sampled, table.columns)),
        f"{', '.join(conditions)}; in full, with commands, in the JSON",
    ]


def _sampled(column: Column) -> str:
    """What a column's samples are, and how many of them have no score."""
    failed = [f"{reason} {count}" for reasons in column.metrics.failures.values() for reason, count in reasons.items()]
    seeds = f", seed {' and '.join(map(str, column.seeds))}" if column.seeds else ""
    return (
        f"{column.label}: {len(column.metrics.samples)} {walks(column)}{seeds}, failed: {', '.join(failed) or 'none'}"
    )


def _short(text: str) -> str:
    """A condition's value, cut."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
