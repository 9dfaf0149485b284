"""A crystal VAE alone on disk: what stands between the two halves of a backbone's pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.checkpoints.folder import config_from, fill, write_folder
from atomrl.checkpoints.stored import Stored, read_stored
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig
from atomrl.util.errors import UserError

PREFIX = "vae."
"""Of the names in the file: the same as in a whole backbone's."""


def save_vae(folder: Path, vae: CrystalVAE, card: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights.

    Raises:
        UserError: the folder cannot be written.
    """
    weights = {PREFIX + name: tensor for name, tensor in vae.state_dict().items()}
    write_folder(folder, weights, {"vae": vae.config.model_dump(), **card})


def load_vae(where: str | Path) -> CrystalVAE:
    """The VAE of a model.

    Args:
        where: a folder that `save_vae`, `save_crystal_backbone` or `save_predictor` wrote; the name of a shipped
            crystal backbone; or a checkpoint (.pth) of a run on crystals.

    Raises:
        UserError: nothing there, truncated, no VAE in it, entries unknown or out of range, or tensors that do not fit
            the model.
    """
    return vae_of(read_stored(str(where)))


def vae_of(stored: Stored) -> CrystalVAE:
    """The VAE of what was read.

    Raises:
        UserError: as `load_vae`.
    """
    if "vae" not in stored.card:
        raise UserError(f"{stored.origin} holds no crystal VAE: its card lacks the entry 'vae'")
    vae = CrystalVAE(config_from(CrystalVAEConfig, stored.card["vae"], stored.origin))
    fill(vae, stored.part(PREFIX, f"policy.{PREFIX}"), stored.origin)
    return vae
