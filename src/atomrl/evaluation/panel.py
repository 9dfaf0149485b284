"""The judges of an evaluation, and their verdicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atomrl.core.records import Prompts, Structures
from atomrl.evaluation.definition import DrawnBy, Scorecard
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.sample_table import SampleColumns
from atomrl.util.closeable import Closing


@dataclass(frozen=True)
class Judged:
    """Samples and every judge's verdict.

    Attributes:
        metrics: the summary.
        samples: what `Panel.write` needs to write them.
        further: other summaries by title, e.g. of the relaxed samples, or of a second judge.
        drawn: how many walks the samples were chosen from; None: from no more than there are; 0: no model drew them.
        scorings: how many structures were scored to choose them; None: nothing chose them by a score.
        source: where samples come from that no model drew.
        about: further columns for the table of samples.
        model: that drew the samples; None: none did, or nothing says which.
        asked: {name: value} that it was asked for, if it is conditional; it drew the others.
    """

    metrics: Scorecard[Any]
    samples: Any
    further: Mapping[str, Scorecard[Any]] = field(default_factory=dict)
    drawn: int | None = None
    scorings: int | None = None
    source: str = "the set"
    about: SampleColumns = field(default_factory=dict)
    model: DrawnBy | None = None
    asked: Mapping[str, str | float] = field(default_factory=dict)


class Panel(Closing, ABC):
    """The judges of an evaluation, with their workers; use it in a `with`."""

    def require_judgeable(self, structures: Structures) -> None:
        """Refuse samples of which nothing can be said, before anything is computed.

        Raises:
            UserError: there are such.
        """

    @abstractmethod
    def judge(self, structures: Structures, kept: KeptSamples | None = None, prompts: Prompts | None = None) -> Judged:
        """Judge samples. What takes long and is made of them, e.g. relaxed samples, is taken from `kept`, and added.

        Args:
            structures: B samples.
            kept: of an evaluation that was stopped.
            prompts: what asked for them, row by row; None: no prompt did.
        """

    @abstractmethod
    def judge_best(self, structures: Structures, prompts: Prompts, n: int, kept: KeptSamples | None = None) -> Judged:
        """Keep the best of each n consecutive samples by the training's total reward, and judge those."""

    @abstractmethod
    def known_samples(self, count: int, seed: int) -> Structures:
        """Some crystals of the reference set, or molecules of QM9, in their own geometry; at most all of them.

        Raises:
            UserError: it is not installed.
        """

    def draw(self, folder: Path, judged: Mapping[str, Judged]) -> None:
        """Write pictures that show all columns, by their headings, together; none where there is nothing to draw."""

    @abstractmethod
    def columns(self, judged: Judged) -> SampleColumns:
        """What the table of samples says of each sample."""

    @abstractmethod
    def write(self, folder: Path, name: str, judged: Judged) -> None:
        """Write the samples of a column as files that other programs read."""
