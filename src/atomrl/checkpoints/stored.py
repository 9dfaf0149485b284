"""A model on disk: a shipped one, a folder, or a run's checkpoint. Reading never runs code from a file."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomrl.checkpoints.folder import first_line, read_folder, refuse_pointer
from atomrl.errors import UserError

SHIPPED = ("edm_qm9_small", "crystal_small")

AVERAGED = "averaged.module."
"""Prefix in a run's checkpoint of the trained module's averaged weights, as torch's AveragedModel names them."""


@dataclass(frozen=True)
class Stored:
    """What was read.

    Attributes:
        card: what describes the model.
        weights: all tensors.
        origin: where it was, for messages.
        trained: whether it is a run's checkpoint, with the names of `RLModule`.
    """

    card: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    origin: str
    trained: bool

    def part(self, of_folder: str, of_run: str) -> dict[str, Tensor]:
        """Tensors below a prefix, which is taken off; the prefix depends on what was read."""
        prefix = of_run if self.trained else of_folder
        return {name.removeprefix(prefix): tensor for name, tensor in self.weights.items() if name.startswith(prefix)}


def read_stored(where: str) -> Stored:
    """Read a model.

    Args:
        where: name of a shipped backbone; a folder with model.safetensors and model.json; or a checkpoint (.pth) of a
            run.

    Raises:
        UserError: nothing there, not a checkpoint, truncated, or code inside.
    """
    path = Path(str(resources.files("atomrl") / "assets" / where)) if where in SHIPPED else Path(where)
    if path.is_dir():
        card, weights = read_folder(path)
        return Stored(card, weights, str(path), trained=False)
    if not path.exists():
        raise UserError(f"no backbone at {where}: give one of {', '.join(SHIPPED)}, a folder or a checkpoint file")
    checkpoint = read_torch(path)
    if not isinstance(checkpoint, dict) or "atomrl" not in checkpoint:
        raise UserError(f"{where} is not a checkpoint of this package: it lacks the entry 'atomrl'")
    return Stored(checkpoint["atomrl"], checkpoint["state_dict"], where, trained=True)


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
