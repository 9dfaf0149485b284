"""Two studies side by side, e.g. one and its ablation: same evaluation, same training seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atomrl.evaluation.table import value_cell
from atomrl.util.errors import UserError
from studies.cells import apart, markdown, over_seeds, row_label
from studies.steps import plan
from studies.studies import STUDIES, Study, read_settings
from studies.tables import SeedResult, shift


def section(study: Study, result: SeedResult, folder: Path) -> str:
    """The part of a study's report that compares it with `study.beside`.

    Args:
        study: with the name of another.
        result: its evaluations.
        folder: of all studies.

    Raises:
        UserError: the other was evaluated in another way.
    """
    assert study.beside is not None
    known = STUDIES[study.beside]
    other = replace(known, seeds=study.seeds, evaluation=study.evaluation and replace(study.evaluation, best_of=()))
    tables = plan(other, read_settings(other), folder / other.name).tables
    heading = f"## Beside study `{other.name}`\n"
    if not all(path.is_file() for path in tables.values()):
        return (
            f"{heading}\nNot compared: the same seeds of `{other.name}` have not been evaluated in the same folder. Run"
            f" `python -m results {other.name}`, then this study again with `--only-report`.\n"
        )
    compared = SeedResult.read(tables, ())
    conditions = [
        {"profile": side.profile, "evaluator": side.evaluator, "conditions": side.conditions}
        | {"seeds": side.seeds, "samples": side.base.samples, "time_step": side.time_step}
        for side in (result, compared)
    ]
    for name in conditions[0]:
        if conditions[0][name] != conditions[1][name]:
            raise UserError(
                f"the studies {study.name} and {other.name} differ in {name} of their evaluations: evaluate both the"
                " same way"
            )
    start = "Both started from the same base with the same seeds"
    if moved := shift(result.base, compared.base):
        start = (
            "Both were trained with the same seeds, but **the base's values differ between them**, by up to"
            f" {100 * moved:.2g} % of a value: it is another base, or used other weights or another number of threads"
        )
    return "\n".join(
        (
            heading,
            f"{start}; [`{other.name}`]({other.name}.md) is the reference."
            " *Apart*: the two trainings of one seed have intervals without a common point.\n",
            table(study.name, result, other.name, compared),
        )
    )


def table(name: str, result: SeedResult, other_name: str, other: SeedResult) -> str:
    """Base, means over the seeds of both, and how many seeds of `result` are apart from their likes in `other`."""
    head = ["metric", f"rewarded in `{other_name}`", f"rewarded in `{name}`", "base"]
    head += [f"`{other_name}`", f"`{name}`", f"seeds of `{name}` apart"]
    rows = []
    for key, metric in ((key, metric) for key, metric in result.metrics.items() if key in other.metrics):
        there, here = ([column.estimates[key] for column in side.trained] for side in (other, result))
        row = [row_label(metric), *("yes" if key in side.rewarded else "" for side in (other, result))]
        row += [value_cell(result.base.estimates[key], metric.unit)]
        row += [value_cell(over_seeds(estimates, metric.unit), metric.unit) for estimates in (there, here)]
        rows.append([*row, apart(here, there, metric.better)])
    elements = [
        f"{sum(column.effective_elements() for column in columns) / len(columns):.1f}"
        for columns in ((result.base,), other.trained, result.trained)
    ]
    rows.append(["effective number of elements", "", "", *elements, ""])
    return markdown(head, rows, left=3)
