"""Files of torch.save, read as tensors and plain values: reading never runs code from a file."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from atomrl.checkpoints.folder import refuse_pointer
from atomrl.util.errors import UserError, first_line

ARCHIVE = b"PK\x03\x04"
"""What a file of torch.save begins with."""


def read_torch(path: Path) -> Any:
    """Tensors and plain values of a file written by torch.save.

    Raises:
        UserError: not such a file, truncated, or it holds objects, whose loading would run code.
    """
    try:
        _require_whole_archive(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # other errors say it better
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values; it was not loaded, since that could run code from it; "
            "published weights are read by `atomrl import`"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): is it truncated? copy it again") from error


def to_bytes(values: object) -> bytes:
    """The content of a file of `torch.save`, by way of memory: torch's own writer has no word for a full disk."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def objects_within(values: object) -> list[str]:
    """Names of what values hold beside tensors and plain values: a file of them `read_torch` would refuse.

    An object that cannot be stored at all is named by the error that says so.
    """
    try:
        stored = to_bytes(values)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        return [first_line(error)]
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(stored)))


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive that a file of torch.save is.

    Raises:
        UserError: torch.save did not write it.
        OSError: it cannot be opened.
        zipfile.BadZipFile: it is truncated.
    """
    refuse_pointer(path)
    with path.open("rb") as file:
        if file.read(len(ARCHIVE)) != ARCHIVE:
            raise UserError(f"{path} is not a file of torch.save, which writes zip archives; it was not loaded")
    return zipfile.ZipFile(path)


def _require_whole_archive(path: Path) -> None:
    """Raise UserError for a file that torch.save did not write, or that changed since: torch compares no checksums."""
    with open_archive(path) as archive:
        if damaged := archive.testzip():
            raise UserError(f"{path} is damaged: {damaged} in it has another checksum than when written; copy it again")
