"""What a report holds, as JSON has it: everything of the runs, and as many samples as are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from atomrl.report.curves import Series, curves, read_series
from atomrl.report.evaluations import Evaluation, Side, read_evaluation, sides_of
from atomrl.report.histograms import histograms
from atomrl.report.samples import LOWER_IS_BETTER, SideSamples, choose, columns_of, samples_of, shown
from atomrl.report.settings import settings_of
from atomrl.report.sources import Source
from atomrl.report.tables import tables


@dataclass(frozen=True)
class Content:
    """What was read.

    Attributes:
        sources: runs and evaluations.
        logs: of each source; empty if it has none.
        evaluations: of those sources that have one.
        sides: their columns.
        samples: of each side; None if its evaluation has no table of them.
    """

    sources: Sequence[Source]
    logs: Sequence[dict[str, Series]]
    evaluations: Sequence[Evaluation]
    sides: Sequence[Side]
    samples: Sequence[SideSamples | None]

    @classmethod
    def read(cls, sources: Sequence[Source]) -> Content:
        """Read everything but the structures.

        Raises:
            UserError: a file cannot be read, or holds something else.
        """
        logs = [{} if source.log is None else read_series(source.log) for source in sources]
        evaluations = [found for source in sources if (found := read_evaluation(source)) is not None]
        sides = sides_of(evaluations)
        return cls(sources, logs, evaluations, sides, samples_of(evaluations, sides))

    @property
    def title(self) -> str:
        """Of the page."""
        return f"atomrl report: {', '.join(source.name for source in self.sources)}"

    @property
    def largest(self) -> int:
        """Samples of the side that has most."""
        return max((len(of_side) for of_side in self.samples if of_side is not None), default=0)

    def data(self, most: int) -> dict[str, Any]:
        """For the scripts of the page.

        Args:
            most: samples of a side, about.

        Raises:
            UserError: a file of structures cannot be read.
        """
        columns = columns_of(self.samples)
        names = [column["name"] for column in columns]
        return {
            "version": version("atomrl"),
            "runs": [self._run(place) for place in range(len(self.sources))],
            "settings": settings_of(self.sources),
            "curves": curves(self.logs),
            "tables": tables(self.evaluations, self.sides),
            "histograms": histograms(self.evaluations, self.sides, self.samples),
            "columns": columns,
            "order_by": next((name for name in LOWER_IS_BETTER if name in names), None),
            "sides": list(self.shown_sides(most)),
        }

    def shown_sides(self, most: int) -> Iterator[dict[str, Any]]:
        """Each side with at most about so many of its samples."""
        for side, samples, rows in zip(self.sides, self.samples, choose(self.samples, most), strict=True):
            found = {"name": side.name, "label": side.label, "held": 0, "draw": None, "samples": None}
            if samples is not None and rows is not None:
                found |= {"held": len(samples), "draw": repr(samples.draw), "samples": shown(samples, rows)}
            yield found

    def left_out(self, most: int) -> str:
        """How many samples of which sides are shown where these are not all; empty if they are."""
        return "; ".join(
            f"{side.name}: {len(rows):,} of {len(samples):,}"
            for side, samples, rows in zip(self.sides, self.samples, choose(self.samples, most), strict=True)
            if samples is not None and rows is not None and len(rows) < len(samples)
        )

    def _run(self, place: int) -> dict[str, Any]:
        """What the page says of a source."""
        source = self.sources[place]
        own = [number for number, evaluation in enumerate(self.evaluations) if evaluation.source == source]
        return {
            "name": source.name,
            "is_run": source.run is not None,
            "iterations": 1 + max((int(iterations[-1]) for iterations, _ in self.logs[place].values()), default=-1),
            "sides": [number for number, side in enumerate(self.sides) if set(own) & set(side.evaluations)],
            "samples": any(self.evaluations[number].samples is not None for number in own),
        }
