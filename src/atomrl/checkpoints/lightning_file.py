"""Checkpoints of Lightning that hold foreign objects in their hyper-parameters: read without running any of it.

A file of torch.save is a zip archive with one pickle and a member for each storage of tensors. The pickle is read as
data (`util/inert_pickle.py`), and of the storages only those that somebody asks for: not the optimizer's.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from atomrl.checkpoints.torch_file import open_archive
from atomrl.util.errors import UserError, first_line
from atomrl.util.inert_pickle import ForeignNameError, Held, read_inert
from atomrl.util.plain_pickle import DAMAGED

T = TypeVar("T")

NAMES = frozenset(
    {
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "object", "set", "str", "tuple")),
        "builtins.long",  # the class int, as it is called in the form of pickle that torch writes
        "argparse.Namespace",
        "collections.OrderedDict",
        "collections.defaultdict",
        "functools.partial",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "typing.Any",
    }
)
"""What the pickle of a checkpoint may name."""

PACKAGES = frozenset(
    {"lightning", "lightning_fabric", "omegaconf", "peft", "pymatgen", "pytorch_lightning", "src", "torch"}
)
"""And packages of which it may name anything; none of it is imported."""

PICKLE, BYTE_ORDER = "data.pkl", "byteorder"
"""Members of the archive, below its folder."""

TYPES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
"""Types of storages, by the name that stands for them."""


@dataclass(frozen=True)
class Storage:
    """Numbers of one or more tensors, which lie in a member of the archive.

    Attributes:
        key: name of the member.
        dtype: of the numbers.
    """

    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read.

    Attributes:
        storage: where its numbers are.
        offset: of the first one in it.
        shape: of the tensor.
        stride: numbers from one row to the next, of each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, numbers: Tensor) -> Tensor:
        """The tensor out of all numbers of its storage.

        Raises:
            ValueError: it reaches beyond them.
        """
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if min((self.offset, *self.shape, *self.stride)) < 0 or (0 not in self.shape and last >= len(numbers)):
            raise ValueError("a tensor reaches beyond its storage")
        return torch.as_strided(numbers, self.shape, self.stride, self.offset).clone()


@dataclass(frozen=True)
class LightningFile:
    """A checkpoint; its tensors are read when asked for.

    Attributes:
        path: of the file.
        hyper_parameters: as they were saved; `Held` for objects of foreign classes.
        weights: the entry `state_dict`.
        callbacks: names of those whose state the file holds; the state is not read.
    """

    path: Path
    hyper_parameters: Mapping[str, Any]
    weights: Mapping[str, StoredTensor]
    callbacks: tuple[str, ...] = ()

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Weights by their names in the file.

        Raises:
            UserError: the file is damaged.
        """
        return _reading(self.path, lambda archive: self._tensors(archive, names))

    def _tensors(self, archive: zipfile.ZipFile, names: Iterable[str]) -> dict[str, Tensor]:
        """As `tensors`; a storage is read once."""
        folder, storages, found = _folder(archive), dict[Storage, Tensor](), dict[str, Tensor]()
        for name in names:
            stored = self.weights[name]
            if stored.storage not in storages:
                numbers = bytearray(archive.read(f"{folder}data/{stored.storage.key}"))
                storages[stored.storage] = torch.frombuffer(numbers, dtype=stored.storage.dtype)
            found[name] = stored.of(storages[stored.storage])
        return found


def read_lightning(path: Path) -> LightningFile:
    """Read a checkpoint of Lightning, without its tensors.

    Raises:
        UserError: no such file, truncated or otherwise damaged, no checkpoint of Lightning, or a pickle that names what
            no such checkpoint needs; nothing of it has run.
    """
    held = _reading(path, lambda archive: plain(_pickle(archive)))
    if not isinstance(held, dict) or not isinstance(held.get("state_dict"), dict):
        raise UserError(f"{path} is not a checkpoint of Lightning: it lacks the entry 'state_dict'")
    weights = held["state_dict"]
    if strange := [name for name, value in weights.items() if not isinstance(value, StoredTensor)]:
        raise UserError(f"{path} is damaged: its state_dict holds {strange[0]!r}, which is no tensor")
    parameters = held.get("hyper_parameters", {})
    if not isinstance(parameters, dict):
        raise UserError(f"{path}: its hyper_parameters are not a mapping of names to values")
    callbacks = held.get("callbacks")
    return LightningFile(path, parameters, weights, tuple(callbacks) if isinstance(callbacks, dict) else ())


def plain(value: Any) -> Any:
    """Mappings, lists and tensors of the classes that hold them, inside each other; another `Held` stays as it is."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return _opened(value) if isinstance(value, Held) else value


def _opened(held: Held) -> Any:
    """What an object holds, if it is of a class that only holds."""
    if held.name == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, stride, *_ = held.arguments
        return StoredTensor(storage, offset, tuple(shape), tuple(stride))
    if held.name.startswith("torch._utils._rebuild_parameter"):
        return plain(held.arguments[0])
    if held.name.startswith("omegaconf.") and isinstance(held.state, dict):
        return plain(held.state["_content"] if "_content" in held.state else held.state.get("_val"))
    if held.name == "collections.OrderedDict" or held.name.endswith(".AttributeDict"):
        return plain(held.entries)
    return held


def _pickle(archive: zipfile.ZipFile) -> Any:
    """What the archive's pickle says."""
    folder = _folder(archive)
    if f"{folder}{BYTE_ORDER}" in archive.namelist() and archive.read(f"{folder}{BYTE_ORDER}") != b"little":
        raise ValueError("it was written on a machine with another byte order")
    with archive.open(f"{folder}{PICKLE}") as file:
        return read_inert(file, NAMES, PACKAGES, _storage)


def _storage(reference: Any) -> Storage:
    """What a reference of the pickle stands for."""
    kind, of, key, *_ = reference
    named = of.name if isinstance(of, type) and issubclass(of, Held) else str(of)
    if kind != "storage" or named not in TYPES:
        raise ValueError(f"numbers of an unknown type, {named}")
    return Storage(str(key), TYPES[named])


def _folder(archive: zipfile.ZipFile) -> str:
    """The archive's one folder, with a slash."""
    inside = [name.removesuffix(PICKLE) for name in archive.namelist() if name.endswith(f"/{PICKLE}")]
    if len(inside) != 1:
        raise ValueError(f"it has no {PICKLE}")
    return inside[0]


def _reading(path: Path, read: Callable[[zipfile.ZipFile], T]) -> T:
    """What a function reads of a file of torch.save; one line for whatever is wrong with it."""
    try:
        with open_archive(path) as archive:
            return read(archive)
    except ForeignNameError as error:
        raise UserError(
            f"{path}: {first_line(error)}, which no published checkpoint needs; it was not loaded, "
            "since that could run code from it"
        ) from error
    except (*DAMAGED, RuntimeError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): is it truncated? copy it again") from error
