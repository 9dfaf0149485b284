"""Samples as the text of a file, a batch at a time, so that a file of any length needs the memory of one batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from atomrl.core.records import Structures
from atomrl.util.closeable import Closing


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
    def text(self, structures: Structures, ids: Sequence[str]) -> Written:
        """The samples of a batch, each with its id. Texts of several batches, joined, are the text of all of them."""

    def close(self) -> None:
        """Give back what is held."""
