"""A model in a folder: model.safetensors for the weights, model.json for everything else. Reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from atomrl.util.errors import UserError, first_line, hinted
from atomrl.util.files import write_json, write_whole
from atomrl.util.options import Options

T = TypeVar("T", bound=Options)

WEIGHTS, CARD = "model.safetensors", "model.json"
CONFIG = "config.yaml"
"""Describes the run that made a model: in its directory, and in a folder that was made of it to be shared."""

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
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"no {what} in {folder}: it lacks {WEIGHTS}")
    card = read_card(folder, what)
    try:
        refuse_pointer(folder / WEIGHTS)
        return card, safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, OSError) as error:
        raise _unreadable(folder, error) from error


def read_card(folder: Path, what: str = "backbone") -> dict[str, Any]:
    """The card alone; arguments and errors as of `read_folder`.

    Args:
        folder: with the card.
        what: should be in it, for errors.

    Raises:
        UserError: it is missing, damaged or no mapping.
    """
    if not (folder / CARD).is_file():
        raise UserError(f"no {what} in {folder}: it lacks {CARD}")
    try:
        card = json.loads((folder / CARD).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(folder, error) from error
    if not isinstance(card, dict):
        raise UserError(f"{folder / CARD} holds {type(card).__name__}, not the mapping that describes a {what}")
    return card


def _unreadable(folder: Path, error: Exception) -> UserError:
    """Of a folder with a damaged file."""
    return UserError(f"{folder} cannot be read ({first_line(error)}): is a file truncated? copy it again")


def config_from(kind: type[T], entries: Any, origin: str) -> T:
    """Configuration out of a card's entries; lists become tuples.

    Raises:
        UserError: the entries are no mapping, one of them is not known to this version, or the configuration refuses
            a value.
    """
    if not isinstance(entries, Mapping):
        raise UserError(f"{origin}: its card has {entries!r} where the entries of {kind.__name__} should be")
    if unknown := sorted(str(name) for name in set(entries) - kind.model_fields.keys()):
        raise UserError(f"{origin}: unknown backbone entries {unknown}; another version wrote it")
    try:
        return kind.read_card(entries)
    except UserError as error:
        raise UserError(f"{origin}, its card: {error}") from error


UNLIKE_CARD = "; the card describes another network than these weights are of: take both of one model"
"""What to do about weights that are not those of the card beside them."""


def finite_numbers(values: Iterable[Any]) -> Tensor:
    """Numbers of a card, (N,) float64, from numbers or texts.

    Raises:
        ValueError, TypeError: one is no number, or not finite.
    """
    found = torch.tensor([float(value) for value in values], dtype=torch.float64)
    if not bool(found.isfinite().all()):
        raise ValueError("a number that is not finite")
    return found


def fill(module: nn.Module, weights: Mapping[str, Tensor], origin: str, hint: str = "") -> None:
    """Load weights into a module of exactly these tensors; floating types may differ.

    Args:
        module: new, with weights that are finite.
        weights: by name.
        origin: of these, for messages.
        hint: what a message says of weights that do not fit.

    Raises:
        UserError: a file that does not hold tensors by name, tensors whose names, shapes or types do not fit, or
            numbers that are not finite where the module's are.
    """
    require_tensors(weights, origin)
    expected = module.state_dict()
    with hinted(hint):
        require_fitting(expected, weights, origin)
    for name, tensor in expected.items():
        if isinstance(tensor, Tensor) and bool(tensor.isfinite().all()) and not bool(weights[name].isfinite().all()):
            raise UserError(
                f"{origin}: {name} holds numbers that are not finite, so that the model computes nothing; give weights "
                "from before the training diverged"
            )
    module.load_state_dict(dict(weights))


def require_fitting(expected: Mapping[str, Any], weights: Mapping[str, Any], origin: str) -> None:
    """Refuse tensors that are not exactly those of a module; floating types may differ.

    Args:
        expected: state of the module.
        weights: to be loaded into it.
        origin: of these, for the message.

    Raises:
        UserError: names, shapes or types do not fit.
    """
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        raise UserError(f"{origin}: tensors do not fit the model: missing {missing[:3]}, not expected {extra[:3]}")
    for name, tensor in expected.items():
        if not isinstance(tensor, Tensor):
            continue  # what a module of the user's keeps beside its tensors
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{origin}: {name} has shape {tuple(weights[name].shape)}, the model needs {tuple(tensor.shape)}"
            )
        if weights[name].is_floating_point() != tensor.is_floating_point():
            raise UserError(f"{origin}: {name} holds {weights[name].dtype}, the model needs {tensor.dtype}")


def require_tensors(weights: object, origin: str) -> None:
    """Raise UserError if an object is not a mapping of names to tensors.

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
        if not str(size).isdecimal() or int(size) < 1 or type(count) is not int or count < 0:
            raise UserError(
                f"{origin}: its card's sizes have {size!r}: {count!r}; both must be whole numbers, {{atoms: count}}"
            )
    if not any(entry.values()):
        raise UserError(f"{origin}: its card's sizes are all counted 0 times")
    return {int(size): count for size, count in entry.items()}


def read_sizes(path: Path) -> dict[int, int]:
    """The size histogram in a JSON file, {atoms: count}.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        return sizes_of({"sizes": json.loads(path.read_text(encoding="utf-8"))}, str(path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): give JSON, {{atoms: count}}") from error


def refuse_pointer(path: Path) -> None:
    """Raise UserError for a Git LFS pointer: text that stands for a file that was not fetched.

    Raises:
        UserError: the file is one.
    """
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`")
