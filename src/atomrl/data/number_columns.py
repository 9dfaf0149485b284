"""Columns of a CSV file as numbers: which texts are numbers, which say that a value is missing, which are neither."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHOWN = 5
"""Rows of a kind that a report names."""

MISSING = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
        *("-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),  # how some systems print a NaN
    }
)
"""What pandas reads as missing (`read_csv`, `keep_default_na`)."""


@dataclass(frozen=True)
class NumberColumn:
    """A column, read as numbers.

    Attributes:
        values: (rows,) float64, NaN where a value is missing or no finite number.
        words: places of the texts that are neither a finite number nor missing.
        filled: how many values are not missing.
    """

    values: NDArray[np.float64]
    words: tuple[int, ...]
    filled: int

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers and nothing else."""
        return bool(self.filled and not self.words)

    @property
    def mostly(self) -> bool:
        """Whether most of what it holds are numbers."""
        return 2 * len(self.words) < self.filled

    def why_not(self, rows: Sequence[int], texts: Sequence[str]) -> str:
        """Why it is no column of numbers, with the first rows that are to blame."""
        if not self.filled:
            return "it is empty"
        to_blame = shown([(rows[place], texts[place]) for place in self.words])
        return f"{len(self.words)} of its {self.filled} values are not finite numbers: {to_blame}"


def number_column(texts: Sequence[str]) -> NumberColumn:
    """Read a column."""
    stripped = [text.strip() for text in texts]
    values = np.array([_number(text) for text in stripped])
    missing = np.array([text in MISSING for text in stripped])
    words = np.flatnonzero(np.isnan(values) & ~missing)
    return NumberColumn(values, tuple(words.tolist()), int((~missing).sum()))


def _number(text: str) -> float:
    """A finite number, or NaN; `1_000` is none, since other programs do not read it."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and "_" not in text else math.nan


def shown(rows: Sequence[tuple[int, str]]) -> str:
    """The first few rows and what stands there."""
    more = len(rows) - SHOWN
    named = ", ".join(f"row {row} ({text!r})" for row, text in rows[:SHOWN])
    return named + (f" and {more} more" if more > 0 else "")
