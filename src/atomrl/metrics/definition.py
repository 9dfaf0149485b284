"""What a metric is called, and what a table needs of the verdict on a set of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Protocol

from atomrl.metrics.bootstrap import Estimate

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


class Metrics(Protocol):
    """The verdict on a set of samples, of molecules or crystals."""

    @property
    def definitions(self) -> Mapping[str, Definition]:
        """All metrics of the profile, in the order of the table."""

    @property
    def profile(self) -> str:
        """Name of the definitions."""

    @property
    def conditions(self) -> Mapping[str, str]:
        """What else the numbers depend on."""

    @property
    def evaluator(self) -> str:
        """Name of the force field."""

    @property
    def summary(self) -> Mapping[str, Estimate]:
        """{metric: estimate}; what nobody was asked for is absent."""

    @property
    def samples(self) -> Sized:
        """The numbers behind it."""

    @property
    def sizes(self) -> Mapping[int, int]:
        """{atoms: samples}."""

    @property
    def elements(self) -> Mapping[str, int]:
        """{symbol: atoms}."""

    @property
    def failures(self) -> Mapping[str, Mapping[str, int]]:
        """{judge: {reason: samples}}."""
