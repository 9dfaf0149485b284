"""Errors that end a run with one line."""

from __future__ import annotations

from collections.abc import Mapping


class UserError(Exception):
    """Something that the user gave is wrong; the message says what, what arrived and what to do. Exit code 2."""


class NonFiniteLossError(Exception):
    """The loss or its gradient is not finite.

    Attributes:
        reproducer: plain values and tensors that let the failing transition be run again.
    """

    def __init__(self, message: str, reproducer: Mapping[str, object]) -> None:
        super().__init__(message)
        self.reproducer = reproducer


def first_line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
