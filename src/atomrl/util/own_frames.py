"""Where in code of the user's an exception came from. No torch in here: worker processes ask too."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from traceback import FrameSummary, StackSummary
from types import FunctionType, MethodType
from typing import Any

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
STANDARD_LIBRARY = f"{sysconfig.get_path('stdlib')}{os.sep}"
INSTALLED = ("site-packages", "dist-packages")
"""Folders of packages that somebody else wrote."""

NO_FILE = ("<frozen", "<string>")
"""How names begin of what has no source: importlib's own code, methods that a dataclass writes."""


def own_frame(error: BaseException, code: object = None) -> FrameSummary | None:
    """The innermost frame of the user's that an exception came through; None: it came through none.

    Neither this package, nor the standard library, nor an installed package is the user's; but the package that `code`
    is from is, wherever it lies.

    Args:
        error: that was caught.
        code: the class, function or object of the user's that was called.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PACKAGE, *NO_FILE))
    ]
    home = _home(code)
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    own = own or [frame for frame in frames if home is not None and frame.filename.startswith(home)]
    return own[-1] if own else None


def place(frame: FrameSummary | None) -> str:
    """A frame as Python's tracebacks show it, file, line and code, in lines without an end; empty for None."""
    if frame is None:
        return ""
    text = "".join(StackSummary.from_list([frame]).format()).rstrip()
    return text.replace(frame.filename, from_here(frame.filename), 1)


def in_words(frame: FrameSummary | None) -> str:
    """A frame in brackets behind a sentence: ` (file, line 3, in name)`; empty for None."""
    return "" if frame is None else f" ({from_here(frame.filename)}, line {frame.lineno}, in {frame.name})"


def definition(code: object) -> FrameSummary | None:
    """Where a class or function begins, or the class of an object; None: in no file that can be read."""
    found = _defined(code)
    try:
        file, (_, line) = inspect.getsourcefile(found), inspect.getsourcelines(found)
    except (OSError, TypeError):
        return None
    return None if file is None else FrameSummary(file, line, found.__name__)


def is_ours(code: object) -> bool:
    """Whether a class, function or object is of this package."""
    return _top(code) == __name__.partition(".")[0]


def in_c(code: object) -> bool:
    """Whether a function or object runs no Python when it is called: an exception of it comes through no frame."""
    code = _called(code)
    if not callable(code) or isinstance(code, type | FunctionType | MethodType):
        return False
    return not isinstance(type(code).__call__, FunctionType)


def from_here(file: str) -> str:
    """A file by its path from the current folder, if it lies below."""
    return os.path.relpath(file) if Path(file).is_absolute() and Path.cwd() in Path(file).parents else file


def _defined(code: object) -> Any:
    """The class or function itself: what a partial calls, and of an object its class."""
    code = _called(code)
    return code if inspect.isclass(code) or inspect.isroutine(code) else type(code)


def _called(code: object) -> object:
    """What a partial calls; anything else as it is."""
    while isinstance(code, functools.partial):
        code = code.func
    return code


def _top(code: object) -> str:
    """The first part of the name of the module that something is from; a method in C, as `str.count`, has none."""
    found = _defined(code)
    return str(found.__module__).partition(".")[0] if hasattr(found, "__module__") else ""


def _home(code: object) -> str | None:
    """The file, or the folder of the package, that holds something; None for what is in no file."""
    module = sys.modules.get(_top(code))
    if module is None or module.__spec__ is None or not module.__spec__.has_location or is_ours(code):
        return None
    file = str(module.__spec__.origin)
    return str(Path(file).parent) if Path(file).name == "__init__.py" else file


def _is_installed(file: str) -> bool:
    """Whether a file is of the standard library or of an installed package."""
    return file.startswith(STANDARD_LIBRARY) or any(part in INSTALLED for part in Path(file).parts)
