"""What a candidate is. Light to import, for the process that only hands candidates to workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

REFERENCE = "reference"
TEXTBOOK = "textbook"
IONIC = "ionic"
SIMILAR = "similar"


@dataclass(frozen=True)
class Candidate:
    """A prototype with its elements replaced.

    Attributes:
        kind: why it was proposed: `reference`, `textbook`, `ionic` or `similar`.
        prototype: label, see `library`, or `molecule:X2`.
        elements: (the prototype's element, the new element), sorted by the first.
    """

    kind: str
    prototype: str
    elements: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """Unique name, by which a build that is resumed knows what is done."""
        return f"{self.prototype}|{','.join(f'{old}>{new}' for old, new in self.elements)}"

    @classmethod
    def make(cls, kind: str, prototype: str, elements: Mapping[str, str]) -> Self:
        """The candidate with this substitution."""
        return cls(kind, prototype, tuple(sorted(elements.items())))
