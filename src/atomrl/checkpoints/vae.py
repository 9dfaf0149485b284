"""A crystal VAE alone on disk: what stands between the two halves of a backbone's pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atomrl.checkpoints.folder import config_from, fill, read_folder, write_folder
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig

PREFIX = "vae."
"""Of the names in the file: the same as in a whole backbone's."""


def save_vae(folder: Path, vae: CrystalVAE, card: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights.

    Raises:
        UserError: the folder cannot be written.
    """
    weights = {PREFIX + name: tensor for name, tensor in vae.state_dict().items()}
    write_folder(folder, weights, {"vae": asdict(vae.config), **card})


def load_vae(folder: Path) -> CrystalVAE:
    """The VAE of a folder that `save_vae` or `save_crystal_backbone` wrote.

    Raises:
        UserError: nothing there, truncated, entries missing or unknown, or tensors that do not fit the model.
    """
    card, weights = read_folder(folder, ("vae",))
    vae = CrystalVAE(config_from(CrystalVAEConfig, card["vae"], str(folder)))
    own = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items() if name.startswith(PREFIX)}
    fill(vae, own, str(folder))
    return vae
