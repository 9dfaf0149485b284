"""Backbones on disk: safetensors for the weights, JSON for everything else. Loading never runs code from a file."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from atomrl.errors import UserError
from atomrl.files import write_json, write_whole
from atomrl.networks.edm import EDMConfig, EDMNetwork

SHIPPED = ("edm_qm9_small",)
AVERAGED = "averaged.module."  # as torch's AveragedModel names what it holds
WEIGHTS, CARD = "model.safetensors", "model.json"
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Backbone:
    """A molecule diffusion model and what goes with it.

    Attributes:
        network: the noise prediction.
        sizes: histogram of atoms per molecule in its training set.
        origin: where it came from, for logs.
    """

    network: EDMNetwork
    sizes: Mapping[int, int]
    origin: str


def load_backbone(where: str) -> Backbone:
    """Load a backbone.

    Args:
        where: name of a shipped backbone; a folder with model.safetensors and model.json; or a checkpoint (.pth) of a
            run, of which the averaged weights are taken.

    Raises:
        UserError: nothing there, not a checkpoint, truncated, code inside, or tensors that do not fit the model.
    """
    if where in SHIPPED:
        return _load_folder(Path(str(resources.files("atomrl") / "assets" / where)))
    path = Path(where)
    if path.is_dir():
        return _load_folder(path)
    if not path.exists():
        raise UserError(f"no backbone at {where}: give one of {', '.join(SHIPPED)}, a folder or a checkpoint file")
    checkpoint = read_torch(path)
    if not isinstance(checkpoint, dict) or "atomrl" not in checkpoint:
        raise UserError(f"{where} is not a checkpoint of this package: it lacks the entry 'atomrl'")
    card = checkpoint["atomrl"]
    weights = {
        name.removeprefix(AVERAGED): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(AVERAGED)
    }
    return Backbone(network_from(card["backbone"], weights, where), _sizes(card, where), where)


def save_backbone(folder: Path, network: EDMNetwork, sizes: Mapping[int, int], card: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    entries = {"backbone": asdict(network.config), "sizes": {str(size): n for size, n in sizes.items()}, **card}
    write_whole(folder / WEIGHTS, safetensors.torch.save(weights))
    write_json(folder / CARD, entries)


def network_from(entries: Mapping[str, Any], weights: Mapping[str, Tensor], origin: str) -> EDMNetwork:
    """Network with these weights.

    Raises:
        UserError: unknown or missing entries, or tensors whose names or shapes do not fit.
    """
    known = {entry.name for entry in fields(EDMConfig)}
    if unknown := sorted(set(entries) - known):
        raise UserError(f"{origin}: unknown backbone entries {unknown}; it was written by another version")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()
    }
    network = EDMNetwork(EDMConfig(**values))
    expected = network.state_dict()
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        raise UserError(f"{origin}: tensors do not fit the model: missing {missing[:3]}, not expected {extra[:3]}")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{origin}: {name} has shape {tuple(weights[name].shape)}, the model needs {tuple(tensor.shape)}"
            )
    network.load_state_dict(dict(weights))
    return network


def read_torch(path: Path) -> Any:
    """Tensors and plain values of a file written by torch.save.

    Raises:
        UserError: not such a file, truncated, or it holds objects, whose loading would run code.
    """
    _refuse_pointer(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # other errors say it better
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values; it was not loaded, since that could run code from it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)}): is it truncated? copy it again") from error


def _load_folder(folder: Path) -> Backbone:
    """Backbone from model.safetensors and model.json."""
    for name in (WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise UserError(f"no backbone in {folder}: it lacks {name}")
    _refuse_pointer(folder / WEIGHTS)
    try:
        card = json.loads((folder / CARD).read_text())
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{folder} cannot be read ({_first_line(error)}): is a file truncated? copy it again"
        ) from error
    if not isinstance(card, dict) or "backbone" not in card:
        raise UserError(f"{folder / CARD} lacks the entry 'backbone'")
    return Backbone(network_from(card["backbone"], weights, str(folder)), _sizes(card, str(folder)), str(folder))


def _sizes(card: Mapping[str, Any], origin: str) -> dict[int, int]:
    """Size histogram of a card."""
    if not card.get("sizes"):
        raise UserError(f"{origin}: no size histogram; add 'sizes': {{atoms: count}}")
    return {int(size): int(count) for size, count in card["sizes"].items()}


def _refuse_pointer(path: Path) -> None:
    """A Git LFS pointer is text that stands for a file that was not fetched."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`")


def _first_line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
