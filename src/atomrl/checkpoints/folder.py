"""A model in a folder: model.safetensors for the weights, model.json for everything else. Reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import safetensors
import safetensors.torch
from torch import Tensor, nn

from atomrl.util.errors import UserError, first_line
from atomrl.util.files import write_json, write_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")
M = TypeVar("M", bound=nn.Module)

WEIGHTS, CARD = "model.safetensors", "model.json"
LFS_POINTER = b"version https://git-lfs"


def write_folder(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write both files, each as a whole.

    Raises:
        UserError: the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_whole(folder / WEIGHTS, safetensors.torch.save(tensors))
    write_json(folder / CARD, card)


def read_folder(folder: Path, what: str = "backbone") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and weights.

    Args:
        folder: with both files.
        what: should be in it, for errors.

    Raises:
        UserError: a file is missing, truncated or a Git LFS pointer, or the card is no mapping.
    """
    for name in (WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise UserError(f"no {what} in {folder}: it lacks {name}")
    try:
        refuse_pointer(folder / WEIGHTS)
        card = json.loads((folder / CARD).read_text())
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{folder} cannot be read ({first_line(error)}): is a file truncated? copy it again") from error
    if not isinstance(card, dict):
        raise UserError(f"{folder / CARD} holds {type(card).__name__}, not the mapping that describes a {what}")
    return card, weights


def config_from(kind: type[C], entries: Any, origin: str) -> C:
    """Configuration dataclass out of a card's entries; lists become tuples.

    Raises:
        UserError: the entries are no mapping, one of them is not known to this version, or a value is of another type
            or one that the configuration refuses.
    """
    if not isinstance(entries, Mapping):
        raise UserError(f"{origin}: its card has {entries!r} where the entries of {kind.__name__} should be")
    known = {entry.name for entry in fields(kind)}
    if unknown := sorted(str(name) for name in set(entries) - known):
        raise UserError(f"{origin}: unknown backbone entries {unknown}; it was written by another version")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()}
    annotations, types = {entry.name: entry.type for entry in fields(kind)}, get_type_hints(kind)
    for name, value in values.items():
        if not _is_a(value, types[name]):
            raise UserError(f"{origin}: its card's {name}={entries[name]!r} is not of type {annotations[name]}")
    try:
        return kind(**values)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"{origin}: {first_line(error)}") from error


def module_from(make: Callable[[C], M], kind: type[C], entries: Any, origin: str) -> M:
    """Module, still without its weights, out of a card's entries.

    Args:
        make: the module's class.
        kind: of its configuration.
        entries: of the configuration, in the card.
        origin: where the card was, for errors.

    Raises:
        UserError: as `config_from`, or the module refuses the configuration.
    """
    config = config_from(kind, entries, origin)
    try:
        return make(config)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value of a card is of an annotated type; a whole number is a float too, a truth value no number."""
    if isinstance(kind, UnionType):
        return any(_is_a(value, option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if parts[-1] is Ellipsis:
            parts = parts[:1] * len(value) if isinstance(value, tuple) else ()
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is_a, value, parts))
    if kind in {int, float} and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def fill(module: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Load weights into a module of exactly these tensors; floating types may differ.

    Raises:
        UserError: what is no tensors by name, or tensors whose names, shapes or types do not fit.
    """
    require_tensors(weights, origin)
    expected = module.state_dict()
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        raise UserError(f"{origin}: tensors do not fit the model: missing {missing[:3]}, not expected {extra[:3]}")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{origin}: {name} has shape {tuple(weights[name].shape)}, the model needs {tuple(tensor.shape)}"
            )
        if weights[name].is_floating_point() != tensor.is_floating_point():
            raise UserError(f"{origin}: {name} holds {weights[name].dtype}, the model needs {tensor.dtype}")
    module.load_state_dict(dict(weights))


def require_tensors(weights: object, origin: str) -> None:
    """Refuse what is no mapping of names to tensors.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(weights, Mapping):
        raise UserError(f"{origin} is damaged: where its weights should be it has {type(weights).__name__}")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{origin} is damaged: its weights hold {name!r}, which is {type(tensor).__name__}")


def sizes_entry(sizes: Mapping[int, int]) -> dict[str, int]:
    """A size histogram as JSON holds it."""
    return {str(size): count for size, count in sizes.items()}


def sizes_of(card: Mapping[str, Any], origin: str) -> dict[int, int]:
    """Size histogram of a card.

    Raises:
        UserError: it has none, or one that is not {atoms: count}.
    """
    entry = card.get("sizes")
    if not entry:
        raise UserError(f"{origin}: no size histogram; add 'sizes': {{atoms: count}}")
    if not isinstance(entry, Mapping):
        raise UserError(f"{origin}: its card's sizes={entry!r} is not a mapping of atoms to counts, {{atoms: count}}")
    for size, count in entry.items():
        if not str(size).isdecimal() or int(size) < 1 or not _is_a(count, int) or count < 0:
            raise UserError(
                f"{origin}: its card's sizes have {size!r}: {count!r}; both must be whole numbers, {{atoms: count}}"
            )
    if not any(entry.values()):
        raise UserError(f"{origin}: its card's sizes are all counted 0 times")
    return {int(size): count for size, count in entry.items()}


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer: text that stands for a file that was not fetched.

    Raises:
        UserError: the file is one.
    """
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`")
