"""Pickles of plain values, read without running anything that stands in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.util.errors import UserError, first_line

DAMAGED = (
    *(pickle.UnpicklingError, EOFError, ValueError, IndexError, AttributeError, TypeError, KeyError),
    *(OverflowError, MemoryError),
)
"""What a pickle raises that is damaged, asks for code, or says that it holds more than can be."""


def read_plain(path: Path, what: str, remedy: str, known: Mapping[tuple[str, str], type] | None = None) -> Any:
    """Lists, sets, dictionaries, texts and numbers, and objects of the classes that are known.

    Args:
        path: of the file.
        what: it should be, for the message.
        remedy: what the message ends with.
        known: {(module, name): the class that stands in for it}; any other name is refused, and nothing is imported.

    Raises:
        UserError: it cannot be read, or holds something else; nothing of it has run.
    """
    allowed = known or {}

    class Reader(pickle.Unpickler):
        """Finds what is known."""

        def find_class(self, module: str, name: str) -> type:
            """The class that stands in."""
            if (module, name) not in allowed:
                raise pickle.UnpicklingError(f"it asks for {module}.{name}")
            return allowed[module, name]

    try:
        with path.open("rb") as file:
            return Reader(file).load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except DAMAGED as error:
        raise UserError(f"{path} is no {what} ({first_line(error)}){remedy}") from error
