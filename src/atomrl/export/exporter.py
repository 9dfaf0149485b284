"""Samples as the text of a file, a batch at a time, so that a file of any length needs the memory of one batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atomrl.core.records import Structures
from atomrl.util.closeable import Closing
from atomrl.util.files import write_whole

Picture = NDArray[np.uint8]
"""Rows, columns, red, green and blue, (H, W, 3)."""

Cell = str | float | bool
"""One thing that is said of a sample."""


class Written(NamedTuple):
    """The text of some samples.

    Attributes:
        text: of those that the format can hold.
        held: how many these are.
    """

    text: str
    held: int


class Exporter(Closing):
    """Writes samples in one format; use it in a `with`.

    Attributes:
        cannot_hold: samples that the format leaves out, in words; empty if it holds all.
    """

    cannot_hold: str = ""

    @abstractmethod
    def about(self, structures: Structures) -> list[dict[str, Cell]]:
        """What is said of each sample beside its atoms, {name: value}: a row each."""

    @abstractmethod
    def text(self, structures: Structures, ids: Sequence[str]) -> Written:
        """The samples of a batch, each with its id. Texts of several batches, joined, are the text of all of them."""

    def write(self, path: Path, structures: Structures) -> int:
        """Write samples that are all there, numbered in order; how many the file holds.

        Raises:
            UserError: it cannot be written.
        """
        made = self.text(structures, [f"{row:05d}" for row in range(len(structures))])
        write_whole(path, made.text)
        return made.held

    def close(self) -> None:
        """Give back what is held."""
