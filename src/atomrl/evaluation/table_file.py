"""The tables of evaluations, as `evaluation.table` writes them, read back. No torch in here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from atomrl.evaluation.definition import Definition, DrawnBy
from atomrl.measures.bootstrap import Estimate
from atomrl.util.errors import UserError


class EstimateEntry(BaseModel):
    """An estimate, of which null is unknown."""

    value: float | None
    low: float | None
    high: float | None
    denominator: int

    def estimate(self) -> Estimate:
        """As the tables of an evaluation have it."""
        value, low, high = (math.nan if end is None else end for end in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.denominator)


class MetricEntry(BaseModel):
    """A row."""

    label: str
    unit: str
    counted: str
    better: str
    columns: dict[str, EstimateEntry]

    def definition(self) -> Definition:
        """What the metric is."""
        return Definition(self.label, self.unit, self.counted, self.better)


NumberOfAtoms = Annotated[str, Field(pattern=r"^[0-9]{1,4}$")]
"""A key of JSON."""


class ColumnEntry(BaseModel):
    """A set of samples."""

    samples: int
    command: str
    seeds: list[int] = []
    drawn: int | None = None
    scorings: int | None = None
    model: DrawnBy | None = None
    time_step: int | None = None
    asked: dict[str, int | float | str] = {}
    sizes: dict[NumberOfAtoms, int] = {}
    elements: dict[str, int] = {}
    failures: dict[str, dict[str, int]] = {}


class TableFile(BaseModel):
    """`evaluation.json`, or one beside it."""

    profile: str
    evaluator: str
    conditions: dict[str, str]
    rewarded: list[str] = []
    metrics: dict[str, MetricEntry]
    columns: dict[str, ColumnEntry]

    def comparable(self, other: TableFile) -> bool:
        """Whether both may stand in one table."""
        mine, theirs = ((one.profile, one.evaluator, one.conditions) for one in (self, other))
        return mine == theirs


def read_table(path: Path) -> TableFile:
    """One table.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        return TableFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; copy it again") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is not the table of an evaluation ({where}: {first['msg']}): copy it again") from error
