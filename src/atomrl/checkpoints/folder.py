"""A model in a folder: model.safetensors for the weights, model.json for everything else. Reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors
import safetensors.torch
from torch import Tensor, nn

from atomrl.errors import UserError
from atomrl.files import write_json, write_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

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
    refuse_pointer(folder / WEIGHTS)
    try:
        card = json.loads((folder / CARD).read_text())
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{folder} cannot be read ({first_line(error)}): is a file truncated? copy it again") from error
    if not isinstance(card, dict):
        raise UserError(f"{folder / CARD} holds {type(card).__name__}, not the mapping that describes a {what}")
    return card, weights


def config_from(kind: type[C], entries: Mapping[str, Any], origin: str) -> C:
    """Configuration dataclass out of a card's entries; lists become tuples.

    Raises:
        UserError: an entry that this version does not know, or a value that the configuration refuses.
    """
    known = {entry.name for entry in fields(kind)}
    if unknown := sorted(set(entries) - known):
        raise UserError(f"{origin}: unknown backbone entries {unknown}; it was written by another version")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{origin}: {first_line(error)}") from error


def fill(module: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Load weights into a module of exactly these tensors.

    Raises:
        UserError: tensors whose names or shapes do not fit.
    """
    expected = module.state_dict()
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        raise UserError(f"{origin}: tensors do not fit the model: missing {missing[:3]}, not expected {extra[:3]}")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{origin}: {name} has shape {tuple(weights[name].shape)}, the model needs {tuple(tensor.shape)}"
            )
    module.load_state_dict(dict(weights))


def sizes_entry(sizes: Mapping[int, int]) -> dict[str, int]:
    """A size histogram as JSON holds it."""
    return {str(size): count for size, count in sizes.items()}


def sizes_of(card: Mapping[str, Any], origin: str) -> dict[int, int]:
    """Size histogram of a card.

    Raises:
        UserError: it has none.
    """
    if not card.get("sizes"):
        raise UserError(f"{origin}: no size histogram; add 'sizes': {{atoms: count}}")
    return {int(size): int(count) for size, count in card["sizes"].items()}


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer: text that stands for a file that was not fetched.

    Raises:
        UserError: the file is one.
    """
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`")


def first_line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
