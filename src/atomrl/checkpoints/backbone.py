"""Backbones on disk: safetensors for the weights, JSON for everything else. Loading never runs code from a file."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomrl.checkpoints.folder import (
    config_from,
    fill,
    first_line,
    read_folder,
    refuse_pointer,
    sizes_entry,
    sizes_of,
    write_folder,
)
from atomrl.errors import UserError
from atomrl.networks.edm import EDMConfig, EDMNetwork

SHIPPED = ("edm_qm9_small",)
AVERAGED = "averaged.module."  # as torch's AveragedModel names what it holds


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
    return Backbone(network_from(card["backbone"], weights, where), sizes_of(card, where), where)


def save_backbone(folder: Path, network: EDMNetwork, sizes: Mapping[int, int], card: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights."""
    entries = {"backbone": asdict(network.config), "sizes": sizes_entry(sizes), **card}
    write_folder(folder, network.state_dict(), entries)


def network_from(entries: Mapping[str, Any], weights: Mapping[str, Tensor], origin: str) -> EDMNetwork:
    """Network with these weights.

    Raises:
        UserError: unknown or missing entries, or tensors whose names or shapes do not fit.
    """
    network = EDMNetwork(config_from(EDMConfig, entries, origin))
    fill(network, weights, origin)
    return network


def read_torch(path: Path) -> Any:
    """Tensors and plain values of a file written by torch.save.

    Raises:
        UserError: not such a file, truncated, or it holds objects, whose loading would run code.
    """
    refuse_pointer(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # other errors say it better
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values; it was not loaded, since that could run code from it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): is it truncated? copy it again") from error


def _load_folder(folder: Path) -> Backbone:
    """Backbone from model.safetensors and model.json."""
    card, weights = read_folder(folder, ("backbone",))
    return Backbone(network_from(card["backbone"], weights, str(folder)), sizes_of(card, str(folder)), str(folder))
