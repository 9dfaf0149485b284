"""Progress bars: on a terminal yes, in a log file no; ELIGN_TQDM=1 forces them on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def shown() -> bool:
    """Whether bars are shown: standard error is a terminal, or ELIGN_TQDM=1."""
    return os.environ.get("ELIGN_TQDM") == "1" or sys.stderr.isatty()


def bar(items: Iterable[T], description: str, total: int | None = None, leave: bool = False) -> tqdm[T]:
    """Iterate with a progress bar on standard error."""
    return tqdm(items, desc=description, total=total, leave=leave, disable=not shown(), dynamic_ncols=True)
