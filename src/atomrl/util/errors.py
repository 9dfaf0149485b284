"""Errors that end a run with one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something that the user gave is wrong; the message says what, what arrived and what to do. Exit code 2.

    Examples:
        >>> try:
        ...     atomrl.load_config("demo", ["sead=1"])
        ... except atomrl.UserError as error:
        ...     print(error)
        unknown configuration key sead: did you mean seed?
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands below the message (PEP 678), e.g. a line of the user's code."""
        return tuple(self.__notes__) if hasattr(self, "__notes__") else ()


class UserCodeError(UserError):
    """Code of the user's raised an exception, which is the cause of this one.

    A note of it (PEP 678) shows the user's own frame; the message says in one line what called that code.

    Args:
        called: what was called, e.g. `the reward component score`.
        how: in what way, e.g. `called on 16 samples`; may be empty.
        error: what it raised.
        place: the user's frame, in lines; empty if no line of theirs is known.

    Attributes:
        during: when that was, e.g. ` in iteration 3`; said by whoever knows.
        traceback_file: what holds the whole traceback; None: no file does.
    """

    def __init__(self, called: str, how: str, error: BaseException, place: str) -> None:
        super().__init__(called, how, error)
        self.called, self.how, self.error, self.during = called, how, error, ""
        self.traceback_file: Path | None = None
        if place:
            self.add_note(place)

    def __str__(self) -> str:
        message = self.error.msg if isinstance(self.error, SyntaxError) else str(self.error)
        what = f"{type(self.error).__name__}: {' '.join(message.split())}".removesuffix(": ")
        how = f"{self.how}{self.during}".strip()
        return f"{self.called}{f', {how},' if how else ''} raised {what}"


class ExplodedError(UserError):
    """All samples of a rollout exploded, so that there is nothing to learn from."""

    def __init__(self, samples: int, iteration: int, limit: float) -> None:
        super().__init__(
            f"all {samples} samples of iteration {iteration} exploded (latents beyond {limit:g}, or not finite): "
            "there is nothing to learn from, and the run stopped"
        )


class NonFiniteLossError(Exception):
    """The loss or its gradient is not finite.

    Attributes:
        reproducer: plain values and tensors that let the failing transition be run again.
    """

    def __init__(self, message: str, reproducer: Mapping[str, object]) -> None:
        super().__init__(message)
        self.reproducer = reproducer


class RankError(Exception):
    """This process ends because another one of the run did.

    Attributes:
        code: its exit code, which becomes that of all.
        repeats: that process says why itself, and should be the first to end.
        quiet: to say it once more helps nobody.
    """

    def __init__(self, message: str, code: int = 1, repeats: bool = False, quiet: bool = False) -> None:
        super().__init__(message)
        self.code, self.repeats, self.quiet = code, repeats, quiet


@contextmanager
def hinted(hint: str) -> Iterator[None]:
    """Around a call: adds to its `UserError` what the reader can do, e.g. which key of a configuration to change."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}{hint}") from error


def first_line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
