"""A file that grows part by part, and goes on where it was stopped.

While it grows it is `<name>.unfinished`, and `<name>.unfinished.json` says which parts are whole; at the end it is
moved into place. So a file under its own name is whole or absent, and what a killed process left of a part is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from atomrl.util.errors import UserError, first_line
from atomrl.util.files import write_json

Settings = Mapping[str, str | int | float | list[Any] | dict[str, Any]]
"""What the parts depend on, as JSON has it."""


class GrowingFile:
    """See the module.

    Args:
        file: `<name>.unfinished`, open.
        notes: `<name>.unfinished.json`.
        settings: as `growing`.
        parts: that are whole.
        count: of what these hold, as `append` was told.
    """

    def __init__(self, file: IO[bytes], notes: Path, settings: Settings, parts: int, count: int) -> None:
        self._file, self._notes, self._settings = file, notes, settings
        self.parts, self.count = parts, count

    def append(self, text: str, count: int) -> None:
        """Add a part, of which the disk holds all when this returns.

        Raises:
            UserError: it cannot be written.
        """
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.parts, self.count = self.parts + 1, self.count + count
        size = self._file.tell()
        write_json(self._notes, {"settings": self._settings, "parts": self.parts, "count": self.count, "bytes": size})


@contextmanager
def growing(path: Path, settings: Settings) -> Iterator[GrowingFile]:
    """A file to append to; it is moved into place if the body ends well, and else stays for another time.

    Args:
        path: of the finished file.
        settings: what the parts depend on.

    Raises:
        UserError: it was begun with other settings, another process is writing it, its notes are damaged, or it cannot
            be written.
    """
    partial = path.with_name(f"{path.name}.unfinished")
    notes = path.with_name(f"{partial.name}.json")
    try:
        if not partial.exists():
            notes.unlink(missing_ok=True)  # of a process that was killed while it ended
        with partial.open("a+b") as file:
            _take(file, partial)
            grown = _continued(file, notes, settings)
            whole = False
            try:
                yield grown
                whole = True
            finally:
                if not whole and not grown.parts:
                    partial.unlink()
            partial.replace(path)
            notes.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write {partial}: {error.strerror or error}; choose a folder that is writable and has room"
        ) from error


def _take(file: IO[bytes], partial: Path) -> None:
    """Raise UserError if another process has the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{partial} is being written by another process: wait for it, or write elsewhere") from error


def _continued(file: IO[bytes], notes: Path, settings: Settings) -> GrowingFile:
    """The file as it was left, without what is not whole."""
    if not notes.exists():
        file.truncate(0)
        return GrowingFile(file, notes, settings, 0, 0)
    again = f"delete {notes.with_suffix('')} and {notes} to begin anew"
    try:
        known = json.loads(notes.read_text())
        begun, parts, count, size = known["settings"], known["parts"], known["count"], known["bytes"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{notes} cannot be read ({first_line(error)}): {again}") from error
    asked = json.loads(json.dumps(settings))
    if differing := [name for name in {**asked, **begun} if begun.get(name) != asked.get(name)]:
        name = differing[0]
        raise UserError(
            f"{notes.with_suffix('')} was begun with {name} {begun.get(name)}, not {asked.get(name)}: give the same "
            f"again, or {again}"
        )
    if os.fstat(file.fileno()).st_size < size:
        raise UserError(f"{notes.with_suffix('')} lost what {notes.name} says that it holds: {again}")
    file.truncate(size)
    file.seek(0, os.SEEK_END)
    return GrowingFile(file, notes, settings, parts, count)
