"""A model on disk: a shipped or fetched one, a folder, or a run's checkpoint. Reading never runs code from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from atomrl.checkpoints.folder import read_folder, require_tensors
from atomrl.checkpoints.named import Named, named_model
from atomrl.checkpoints.published_edm import is_published, read_published
from atomrl.checkpoints.torch_file import read_torch
from atomrl.util.errors import UserError

AVERAGED = "averaged.module."
"""Prefix in a run's checkpoint of the trained module's averaged weights, as torch's AveragedModel names them."""


@dataclass(frozen=True)
class Stored:
    """What was read.

    Attributes:
        card: what describes the model.
        weights: all tensors.
        origin: where it was, for messages and results.
        trained: whether it is a run's checkpoint, with the names of `RLModule`.
        entries: names of all that such a checkpoint holds.
    """

    card: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    origin: str
    trained: bool
    entries: frozenset[str] = frozenset()

    def part(self, of_folder: str, of_run: str) -> dict[str, Tensor]:
        """Tensors below a prefix, which is taken off; the prefix depends on what was read."""
        prefix = of_run if self.trained else of_folder
        return {name.removeprefix(prefix): tensor for name, tensor in self.weights.items() if name.startswith(prefix)}


def read_stored(where: str) -> Stored:
    """Read a model.

    Args:
        where: as of `named_model`; of a run directory its latest checkpoint is read.

    Raises:
        UserError: as `named_model`, or not a checkpoint, truncated or otherwise damaged, or code inside.
    """
    return read_named(named_model(where))


def read_named(named: Named) -> Stored:
    """Read a model that was found; errors as of `read_stored`."""
    path = named.weights
    if path.is_dir():
        card, weights = read_published(path) if is_published(path) else read_folder(path)
        return Stored(card, weights, named.origin, trained=False)
    checkpoint = read_torch(path)
    for entry in ("atomrl", "state_dict"):
        if not isinstance(checkpoint, dict) or entry not in checkpoint:
            raise UserError(
                f"{path} is not a checkpoint of this package: it lacks the entry {entry!r}; `atomrl import` makes a "
                "model of a published one"
            )
    card, weights = checkpoint["atomrl"], checkpoint["state_dict"]
    if not isinstance(card, dict):
        raise UserError(f"{path} is damaged: its entry 'atomrl' is {card!r}, not the mapping that describes a model")
    require_tensors(weights, str(path))
    return Stored(card, weights, str(path), trained=True, entries=frozenset(checkpoint))
