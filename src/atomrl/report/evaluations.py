"""Evaluations as their folders hold them, and which of their columns a report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atomrl.evaluation.evaluate import FURTHER, JSON, SAMPLES, in_file_name
from atomrl.evaluation.sample_table import SampleColumn, read_sample_table
from atomrl.evaluation.table_file import TableFile, read_table
from atomrl.report.sources import Source


@dataclass(frozen=True)
class Evaluation:
    """What a folder holds.

    Attributes:
        source: whose it is.
        folder: with the files.
        main: the table of all samples.
        further: others by title, e.g. `relaxed`.
        samples: {heading: what is known of each sample}; None: an earlier version wrote no such table.
    """

    source: Source
    folder: Path
    main: TableFile
    further: Mapping[str, TableFile]
    samples: Mapping[str, Mapping[str, SampleColumn]] | None


@dataclass(frozen=True)
class Side:
    """A set of samples that the report shows beside others.

    Attributes:
        name: for people; no two sides have the same.
        label: heading of its column.
        evaluations: places of the evaluations whose column this is: more than one if they judged the same samples.
    """

    name: str
    label: str
    evaluations: tuple[int, ...]


def read_evaluation(source: Source) -> Evaluation | None:
    """Read all tables; None if there is no evaluation.

    Raises:
        UserError: a file cannot be read, or holds something else.
    """
    folder = source.evaluation
    if folder is None:
        return None
    start, end = FURTHER.split("{}")
    further = {
        path.name.removeprefix(start).removesuffix(end).replace("_", " "): read_table(path)
        for path in sorted(folder.glob(FURTHER.format("*")))
    }
    table = folder / SAMPLES
    samples = read_sample_table(table) if table.is_file() else None
    return Evaluation(source, folder, read_table(folder / JSON), further, samples)


def sides_of(evaluations: Sequence[Evaluation]) -> list[Side]:
    """The columns of all main tables, each set of samples once."""
    found: list[tuple[str, list[int]]] = []
    for place, evaluation in enumerate(evaluations):
        for label in evaluation.main.columns:
            same = (members for known, members in found if known == label and _same(evaluations, members, place, label))
            members = next(same, None)
            if members is None:
                found.append((label, [place]))
            else:
                members.append(place)
    alike = Counter(label for label, _ in found)
    return [
        Side(label if alike[label] == 1 else f"{evaluations[members[0]].source.name}: {label}", label, tuple(members))
        for label, members in found
    ]


def sample_file(evaluation: Evaluation, label: str, ending: str) -> Path:
    """The file of a column's samples in one format; it need not be there."""
    return evaluation.folder / f"{in_file_name(label)}.{ending}"


def _same(evaluations: Sequence[Evaluation], members: Sequence[int], place: int, label: str) -> bool:
    """Whether the column of an evaluation is that of others: the same samples with the same verdicts."""
    return _identity(evaluations[members[0]], label) == _identity(evaluations[place], label)


def _identity(evaluation: Evaluation, label: str) -> tuple[object, ...]:
    """What two columns share that are of the same samples; command, and place of the model, are its run's own."""
    main = evaluation.main
    numbers = {name: row.columns[label] for name, row in main.metrics.items() if label in row.columns}
    column = main.columns[label].model_copy(update={"command": "", "model": None})
    return main.profile, main.evaluator, main.conditions, numbers, column
