"""A file that grows part by part, and goes on where it was stopped.

While it grows it is `<name>.unfinished`, and `<name>.unfinished.json` says which parts are whole; at the end it is
moved into place. So a file under its own name is whole or absent, and what a killed process left of a part is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from atomrl.util.errors import UserError, first_line
from atomrl.util.files import write_json
from atomrl.util.trees import dotted

Settings = Mapping[str, str | int | float | list[Any] | dict[str, Any]]
"""What the parts depend on, as JSON has it; of what differs the first is named."""


FORMAT = 3
"""Of the notes; those of earlier versions, which do not say it, lack some of the settings."""


class GrowingFile:
    """See the module.

    Args:
        file: `<name>.unfinished`, open.
        notes: `<name>.unfinished.json`.
        settings: as `growing`.
        parts: that are whole.
        counts: sums over these of what `append` was told.
    """

    def __init__(self, file: IO[bytes], notes: Path, settings: Settings, parts: int, counts: Mapping[str, int]) -> None:
        self._file, self._notes, self._settings = file, notes, settings
        self.parts, self.counts, self.unwanted = parts, Counter(counts), False

    def append(self, text: str, counts: Mapping[str, int]) -> None:
        """Add a part, of which the disk holds all when this returns.

        Args:
            text: of the part.
            counts: numbers about it that add up over the parts, by name.

        Raises:
            UserError: it cannot be written.
        """
        with _written(self._notes.with_suffix("")):
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            self.parts += 1
            self.counts.update(counts)
            size = self._file.tell()
            notes = {"settings": self._settings, "parts": self.parts, "counts": self.counts, "bytes": size}
            write_json(self._notes, {"format": FORMAT, **notes})

    def discard(self) -> None:
        """Nobody wants the file: at the end it is deleted, and what has its name stays."""
        self.unwanted = True


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
    with _written(partial):
        if not partial.exists():
            notes.unlink(missing_ok=True)  # of a process that was killed while it ended
        opened = partial.open("a+b")
    with opened as file:
        with _written(partial):
            _take(file, partial)
            grown = _continued(file, notes, settings)
        whole = False
        try:
            yield grown
            whole = True
        finally:
            if not whole and not grown.parts:
                partial.unlink()
        with _written(partial):
            if grown.unwanted:
                partial.unlink()
            else:
                partial.replace(path)
            notes.unlink(missing_ok=True)


@contextmanager
def _written(partial: Path) -> Iterator[None]:
    """Tell of what the disk refuses, and of nothing that fails between two parts."""
    try:
        yield
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
        return GrowingFile(file, notes, settings, 0, {})
    again = f"delete {notes.with_suffix('')} and {notes} to begin anew"
    try:
        known = json.loads(notes.read_text())
        begun, parts, counts, size = dict(dotted(known["settings"])), known["parts"], known["counts"], known["bytes"]
        counts = {name: int(count) for name, count in counts.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{notes} cannot be read ({first_line(error)}): {again}") from error
    asked = dict(dotted(json.loads(json.dumps(settings))))
    if differing := [name for name in {**asked, **begun} if begun.get(name) != asked.get(name)]:
        name = differing[0]
        if known.get("format") != FORMAT and (name in begun) != (name in asked):
            raise UserError(
                f"{notes.with_suffix('')} was begun by an earlier version, {'with' if name in begun else 'without'} "
                f"{name}: begin again under another name, or {again}"
            )
        was, now = (values.get(name, "unset") for values in (begun, asked))
        raise UserError(
            f"{notes.with_suffix('')} was begun with {name} {was}, not {now}: give the same again, or {again}"
        )
    if os.fstat(file.fileno()).st_size < size:
        raise UserError(f"{notes.with_suffix('')} lost what {notes.name} says that it holds: {again}")
    file.truncate(size)
    file.seek(0, os.SEEK_END)
    return GrowingFile(file, notes, settings, parts, counts)
