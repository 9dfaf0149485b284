"""How a task says that an item has no result. No torch in here."""

from __future__ import annotations


class Failure(Exception):
    """An item that has no result.

    Attributes:
        reason: short class of failure, e.g. `scf`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
