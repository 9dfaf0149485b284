"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atomrl.util.errors import UserError, first_line


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file under the temporary name that this yields; at the end it is moved into place.

    Folders are made as needed. If the body raises, nothing half-written stays behind.

    Raises:
        UserError: the file cannot be written (full disk, no permission).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.chmod(0o644)  # some writers make files that only their owner can read
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that is writable and has room"
        ) from error


def require_writable(folder: Path, said: str) -> Path:
    """Make a folder as needed, before anything is computed that shall be written there.

    Args:
        folder: to write in.
        said: how the user named it, for the error.

    Raises:
        UserError: it cannot be made, or nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {said}: {error.strerror}; choose another folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {said}: no permission; choose another folder")
    return folder


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text or bytes as a whole.

    Raises:
        UserError: as `whole`.
    """
    with whole(path) as partial, partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, values: object) -> None:
    """Write JSON as a whole.

    Raises:
        UserError: as `whole`.
    """
    write_whole(path, json.dumps(values, indent=1) + "\n")


def drop_partial_line(path: Path) -> None:
    """Cut off a last line that a killed program left unfinished; the file need not exist."""
    if not path.exists():
        return
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        os.truncate(path, complete)


def whole_text(path: Path) -> str:
    """A file as it is.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): copy it again") from error


def content_hash(path: Path) -> str:
    """The first 12 digits of the SHA-256 of a file's content, whatever it is called.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; make it readable") from error


WRITTEN = frozenset(
    (
        *("log", "logs", "logfile", "logging", "out", "output", "outputs", "outfile", "txt", "stdout", "stderr"),
        *("traj", "trajectory", "label", "prefix", "command", "cmd", "python", "executable", "binary", "program"),
        *("directory", "dir", "folder", "workdir", "tmp", "temp", "scratch"),
    )
)
"""Words of the names of options that say what a program writes, where, or what runs: `log_file`, `txt`, `label`."""

READ = frozenset(("model", "models", "weights", "checkpoint", "ckpt", "params", "parameters", "potential", "encoder"))
"""Words of the names of options whose file is read, whatever else the name says: `label_encoder`."""


def file_that_is_read(name: str, value: object) -> Path | None:
    """The file that an option names, if it is there; None for what `WRITTEN` holds, or what looks like no path.

    Args:
        name: of the option.
        value: of the option; `~` is the home folder. A text without a suffix or a separator is a word, whatever is
            called so in the current folder.
    """
    words = {*name.lower().split("_")}
    if not isinstance(value, str | Path) or (WRITTEN & words and not READ & words):
        return None
    try:
        path = Path(value).expanduser()
        return path if (path.suffix or os.sep in str(value)) and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long for a path, no such user, a null character
        return None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that has one on each line; a last line that a killed program left unfinished is left out.

    Raises:
        UserError: the file cannot be read, or a line is no object.
    """
    lines = whole_text(path).split("\n")[:-1]
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number} is not JSON ({first_line(error)}): copy it again") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: line {number} is not a JSON object: is it another file?")
        found.append(values)
    return found
