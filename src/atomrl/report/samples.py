"""Single samples for the page: which of them, their numbers, their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atomrl.evaluation.relaxation import chosen_rows
from atomrl.evaluation.sample_columns import POSES, RELAXED, SECOND_JUDGE
from atomrl.evaluation.sample_table import SAMPLE_ID, SampleColumn
from atomrl.report.evaluations import Evaluation, Side
from atomrl.report.rounding import rounded
from atomrl.report.structures import StructureText, depiction, structure_texts

LOWER_IS_BETTER = ("rms_force", "e_above_hull", "no_bond_entry")
"""Columns; the first two are what samples are ordered by at first, where they are there."""
TAGS = frozenset({"stable", "valid", "novel", "metastable", "unique", "msun"})
"""Truth values that stand below a sample's picture; so does why something of the main table is not known."""
FURTHER = (RELAXED, SECOND_JUDGE, POSES)
"""How columns begin that are of a table beside the main one."""
DEPICTED = "smiles"
"""The column that molecules are drawn from."""
EXTREMES = 50
"""Best and worst samples of a side that are shown of a large evaluation, at most."""


@dataclass(frozen=True)
class SideSamples:
    """All samples of a side.

    Attributes:
        side: whose they are.
        evaluation: that judged them.
        columns: what is known of each, with their ids.
    """

    side: Side
    evaluation: Evaluation
    columns: Mapping[str, SampleColumn]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def ids(self) -> Sequence[str]:
        """Of the samples."""
        return [str(name) for name in self.columns[SAMPLE_ID].values]

    @cached_property
    def texts(self) -> dict[str, StructureText]:
        """Their structures by id."""
        return structure_texts(self.evaluation, self.side.label, self.ids)

    @property
    def draw(self) -> tuple[object, ...]:
        """What two sides share whose samples of one id began from the same size and noise; else it is like no other."""
        column = self.evaluation.main.columns[self.side.label]
        if not column.seeds or column.drawn not in (None, column.samples):
            return (self.side.name,)
        return (*column.seeds, column.time_step, *column.sizes.items())

    def ranking(self) -> NDArray[np.float64]:
        """By which samples are best and worst, (B,), lower is better; NaN where there is none."""
        name = next((name for name in LOWER_IS_BETTER if name in self.columns), None)
        return np.full(len(self), np.nan) if name is None else np.asarray(self.columns[name].values, dtype=np.float64)


def samples_of(evaluations: Sequence[Evaluation], sides: Sequence[Side]) -> list[SideSamples | None]:
    """The samples of each side, by the first of its evaluations that has a table of them; None where none has."""
    found: list[SideSamples | None] = []
    for side in sides:
        known = [
            SideSamples(side, evaluation, evaluation.samples[side.label])
            for evaluation in (evaluations[place] for place in side.evaluations)
            if evaluation.samples is not None and side.label in evaluation.samples
        ]
        found.append(known[0] if known else None)
    return found


def columns_of(samples: Sequence[SideSamples | None]) -> list[dict[str, Any]]:
    """Every column that some side has: its name, what it is, its unit, its kind, which end is better, whether a tag.

    Of a table beside the main one no end is better: a sample may be unknown there because it had no part in it.
    """
    known = {name: column for of_side in samples if of_side is not None for name, column in of_side.columns.items()}
    found = []
    for name, column in known.items():
        kind = _kind(column)
        main = not name.startswith(FURTHER)
        better = "lower" if name in LOWER_IS_BETTER else "higher" if kind == "flag" and main else ""
        about = {"name": name, "about": column.about, "unit": column.unit, "kind": kind}
        found.append({**about, "better": better, "tag": name in TAGS or (main and name.endswith("_reason"))})
    return found


def choose(samples: Sequence[SideSamples | None], most: int) -> list[NDArray[np.int64] | None]:
    """Which rows of each side are shown.

    All, if they are few. Of more: those with the best and with the worst number, and others drawn at random. Sides
    whose samples of one id belong together show the same ids.

    Args:
        samples: of each side.
        most: rows of a side, about.
    """
    together: dict[tuple[object, ...], list[SideSamples]] = {}
    for of_side in samples:
        if of_side is not None:
            together.setdefault((of_side.draw, len(of_side)), []).append(of_side)
    rows = {
        key: _rows(len(group[0]), most, [of_side.ranking() for of_side in group]) for key, group in together.items()
    }
    return [None if of_side is None else rows[of_side.draw, len(of_side)] for of_side in samples]


def shown(samples: SideSamples, rows: NDArray[np.int64], pictures: bool = True) -> dict[str, Any]:
    """These rows of a side, for the page.

    Args:
        samples: of the side.
        rows: of them.
        pictures: whether molecules are drawn.
    """
    ids = [samples.ids[row] for row in rows.tolist()]
    texts = [samples.texts.get(name) for name in ids]
    smiles = samples.columns[DEPICTED].values if DEPICTED in samples.columns and pictures else None
    return {
        "ids": ids,
        "values": {name: _values(column, rows) for name, column in samples.columns.items() if name != SAMPLE_ID},
        "endings": [None if text is None else text.ending for text in texts],
        "texts": [None if text is None else text.text for text in texts],
        "pictures": [None if smiles is None or not smiles[row] else depiction(smiles[row]) for row in rows.tolist()],
    }


def _rows(count: int, most: int, rankings: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """Rows of sides that show the same ids."""
    if count <= most:
        return np.arange(count)
    each = min(EXTREMES, most // (4 * len(rankings)))
    ends = [np.zeros(0, dtype=np.int64)]
    for values in rankings:
        order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]  # NaN comes last
        ends += [order[:each], order[len(order) - each :]] if len(order) >= 2 * each else [order]
    extremes = np.unique(np.concatenate(ends))
    others = chosen_rows(count, max(1, most - len(extremes))).numpy()
    return np.unique(np.concatenate([extremes, others]))


def _kind(column: SampleColumn) -> str:
    """`text`, `flag` or `number`."""
    values = column.values
    return "text" if not isinstance(values, np.ndarray) else "flag" if values.dtype.kind == "b" else "number"


def _values(column: SampleColumn, rows: NDArray[np.int64]) -> list[Any]:
    """Of these rows, as JSON has them."""
    values = column.values
    if not isinstance(values, np.ndarray):
        return [values[row] for row in rows.tolist()]
    if column.known is not None:
        values = np.where(column.known, values, np.nan)
    return rounded(values[rows].astype(np.int64) if values.dtype.kind == "b" else values[rows])
