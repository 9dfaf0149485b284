"""Backbones on disk: safetensors for the weights, JSON for everything else. Loading never runs code from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atomrl.checkpoints.conditioning import conditioning_entries, conditioning_of
from atomrl.checkpoints.folder import UNLIKE_CARD, config_from, fill, sizes_entry, sizes_of, write_folder
from atomrl.checkpoints.published_edm import read_published
from atomrl.checkpoints.stored import AVERAGED, Stored, read_stored
from atomrl.core.conditioning import Property, PropertyConditioning
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import MoleculePolicy
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A molecule diffusion model and what goes with it.

    Attributes:
        network: the noise prediction.
        sizes: histogram of atoms per molecule in its training set.
        origin: where it came from, for logs.
        conditioning: what it is conditioned on; None: it is unconditional.
    """

    network: EDMNetwork
    sizes: Mapping[int, int]
    origin: str
    conditioning: PropertyConditioning | None = None

    @property
    def card(self) -> dict[str, Any]:
        """What a checkpoint says of it, so that it can be loaded alone."""
        entries = {"sizes": sizes_entry(self.sizes), "origin": self.origin}
        return {"backbone": self.network.config.model_dump(), **entries, **conditioning_entries(self.conditioning)}

    def policy(self) -> MoleculePolicy:
        """The policy that samples from it; shares its weights."""
        return MoleculePolicy(self.network)


def load_backbone(where: str) -> Backbone:
    """Load a molecule backbone.

    Args:
        where: name of a shipped backbone; a folder with model.safetensors and model.json; or a checkpoint (.pth) of a
            run, of which the averaged weights are taken.

    Raises:
        UserError: nothing there, not a checkpoint, truncated, code inside, a card with entries that are unknown or out
            of range, tensors that do not fit the model, or a model of crystals.
    """
    stored = read_stored(where)
    return backbone_of(stored)


def backbone_of(stored: Stored) -> Backbone:
    """The molecule backbone of what was read.

    Raises:
        UserError: as `load_backbone`.
    """
    if "backbone" not in stored.card:
        raise UserError(
            f"{stored.origin} is not a molecule backbone: its card lacks the entry 'backbone'; give a model of "
            "molecules"
        )
    weights = stored.part("", AVERAGED)
    network = EDMNetwork(config_from(EDMConfig, stored.card["backbone"], stored.origin))
    fill(network, weights, stored.origin, UNLIKE_CARD)
    conditioning = conditioning_of(stored.card, network.config.context_features, stored.origin)
    return Backbone(network, sizes_of(stored.card, stored.origin), stored.origin, conditioning)


def save_backbone(
    folder: Path,
    network: EDMNetwork,
    sizes: Mapping[int, int],
    card: Mapping[str, Any],
    conditioning: PropertyConditioning | None = None,
) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights."""
    entries = {"backbone": network.config.model_dump(), "sizes": sizes_entry(sizes)}
    write_folder(folder, network.state_dict(), {**entries, **conditioning_entries(conditioning), **card})


def import_edm(
    folder: Path, output: Path, sizes: Path | None = None, known: Mapping[str, Property] | None = None
) -> Backbone:
    """Write a backbone folder out of a published one; arguments and errors as `published_edm.read_published`.

    Args:
        folder: with the published files.
        output: for model.safetensors and model.json.
        sizes: JSON, {atoms: count} of the training set.
        known: how the values of the properties are distributed that a conditional model takes; None: not known.

    Raises:
        UserError: as `read_published`, or its tensors do not fit the network that its settings describe.
    """
    card, weights = read_published(folder, sizes)
    made = backbone_of(Stored(card, weights, str(folder), trained=False))
    if made.conditioning is not None and known is not None:
        made = replace(made, conditioning=replace(made.conditioning, known=known))
    save_backbone(output, made.network, made.sizes, {"origin": card["origin"]}, made.conditioning)
    return made
