"""What a metric is called, and what a table needs of the verdict on a set of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

from atomrl.measures.bootstrap import Estimate

S = TypeVar("S", bound=Sized)
T = TypeVar("T", bound=Sized)

SKIPPED = "skipped"
"""Evaluator and reason where no force field was asked."""


@dataclass(frozen=True)
class Definition:
    """How a metric is printed and read.

    Attributes:
        label: its name for people.
        unit: `%` for a share, which is kept as a fraction and printed times 100; empty for a plain number; otherwise a
            physical unit.
        counted: what the denominator counts.
        better: `higher`, `lower`, or `neither`.
    """

    label: str
    unit: str
    counted: str
    better: str


@dataclass(frozen=True)
class DrawnBy:
    """Which model drew samples.

    Attributes:
        origin: where it came from; of a model on the hub its name with the commit.
        weights: a hash of all its tensors, the same for a checkpoint and for a folder that was made of it.
    """

    origin: str
    weights: str


@dataclass(frozen=True)
class Scorecard(Generic[S]):
    """The verdict on a set of samples, of molecules or crystals.

    Attributes:
        definitions: all metrics of the profile, in the order of the table.
        profile: name of the definitions.
        conditions: what else the numbers depend on.
        evaluator: name of the force field, with its hull if there is one.
        summary: {metric: estimate}; metrics that were not requested are omitted.
        samples: the numbers behind it.
        sizes: {atoms: samples}.
        elements: {symbol: atoms}; an atomic number that is no element stands as `Z=...`.
        failures: {judge: {reason: samples}}.
    """

    definitions: Mapping[str, Definition]
    profile: str
    conditions: Mapping[str, str]
    evaluator: str
    summary: Mapping[str, Estimate]
    samples: S
    sizes: Mapping[int, int]
    elements: Mapping[str, int]
    failures: Mapping[str, Mapping[str, int]]

    def with_rows(
        self,
        definitions: Mapping[str, Definition],
        summary: Mapping[str, Estimate],
        conditions: Mapping[str, str] | None = None,
    ) -> Self:
        """The same verdict with more rows at the end of the table.

        Args:
            definitions: of the rows.
            summary: their numbers; a row without one stays empty.
            conditions: what else these depend on.
        """
        return replace(
            self,
            definitions={**self.definitions, **definitions},
            summary={**self.summary, **summary},
            conditions={**self.conditions, **(conditions or {})},
        )

    def again(
        self,
        samples: T,
        definitions: Mapping[str, Definition],
        summary: Mapping[str, Estimate],
        failures: Mapping[str, Mapping[str, int]],
        geometry: str = "",
        evaluator: str = "",
    ) -> Scorecard[T]:
        """Another verdict on the same samples, with a table of its own.

        Args:
            samples: the numbers behind it.
            definitions: of its rows.
            summary: their numbers.
            failures: as in `failures`.
            geometry: what was judged, for the record; empty: the same.
            evaluator: who judged; empty: the same.
        """
        return Scorecard(
            definitions,
            self.profile,
            {**self.conditions, **({"geometry": geometry} if geometry else {})},
            evaluator or self.evaluator,
            summary,
            samples,
            self.sizes,
            self.elements,
            failures,
        )
