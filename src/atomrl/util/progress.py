"""Progress bars: on a terminal yes, in a log file no; ELIGN_TQDM=1 forces them on."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_hidden = threading.Event()
"""Set while no bar is shown."""


def shown() -> bool:
    """Whether bars are shown: standard error is a terminal, or ELIGN_TQDM=1, and this process may show any."""
    return not _hidden.is_set() and (os.environ.get("ELIGN_TQDM") == "1" or sys.stderr.isatty())


@contextmanager
def hidden() -> Iterator[None]:
    """No bars in here, for a process beside one that shows them."""
    _hidden.set()
    try:
        yield
    finally:
        _hidden.clear()


def bar(
    items: Iterable[T], description: str, total: int | None = None, leave: bool = False, initial: int = 0
) -> tqdm[T]:
    """Iterate with a progress bar on standard error; `initial` of the `total` are done already."""
    return tqdm(
        items, desc=description, total=total, leave=leave, initial=initial, disable=not shown(), dynamic_ncols=True
    )
