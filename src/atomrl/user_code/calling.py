"""Around every call of code of the user's: what it raises is told by what called it, and by the user's own line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import FrameSummary, format_exception_only

from atomrl.util.errors import NonFiniteLossError, RankError, UserCodeError, UserError
from atomrl.util.own_frames import definition, from_here, in_c, is_ours, own_frame, place


@contextmanager
def calling(called: str, code: object, how: str = "") -> Iterator[None]:
    """Around a call of code of the user's, also one that may turn out to be this package's.

    An exception that came through no line of the user's is a mistake of ours and passes as it is. So does the end of
    the run that another process asks for, and Ctrl-C.

    Args:
        called: what is called, for the message, e.g. `the reward component score`.
        code: the class, function or object; None: nobody knows yet, as while a file is imported.
        how: it is called, for the message, e.g. `called on 16 samples`.

    Raises:
        UserCodeError: it raised an exception.
        UserError: it wants to end the program, or what it did was refused; a note says where.
    """
    try:
        yield
    except (UserCodeError, NonFiniteLossError, RankError):
        raise
    except UserError as error:
        if not is_ours(code):
            located(error, own_frame(error, code) or definition(code))
        raise
    except SystemExit as error:
        said = UserError(f"{called} calls sys.exit({error.code!r}): raise an exception instead")
        raise located(said, own_frame(error, code)) from error
    except Exception as error:
        shown = _place(error, code)
        if shown is None:
            raise
        raise UserCodeError(called, how, error, shown) from error


@contextmanager
def during(when: str) -> Iterator[None]:
    """Around what may call code of the user's: its error says when that was, e.g. ` in iteration 3`."""
    try:
        yield
    except UserCodeError as error:
        error.during = error.during or when
        raise


def located(error: UserError, frame: FrameSummary | None) -> UserError:
    """The error with a note that shows a frame of the user's, unless it has one or there is no frame."""
    if frame is not None and not error.notes:
        error.add_note(place(frame))
    return error


def _place(error: Exception, code: object) -> str | None:
    """The user's line that an exception came from; None: it came from none of theirs."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        text = "".join(format_exception_only(error)[:-1]).rstrip()
        return text.replace(error.filename, from_here(error.filename), 1)
    frame = own_frame(error, code)
    if frame is None and (is_ours(code) or not (isinstance(error, TypeError) or in_c(code))):
        return None
    return place(frame or definition(code))  # without a frame: it does not take what it is called with
