"""Files that are either whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

from atomrl.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name beside `path`, then rename it; folders are made as needed.

    Raises:
        UserError: it cannot be written (full disk, no permission); nothing half-written stays behind.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; choose a folder that is writable and has room"
        ) from error
