"""Published modules of crystals by the one method that other code calls on their classes: `load_from_checkpoint`.

What it returns is a model of this package, out of a folder of this package or a published checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone
from atomrl.checkpoints.import_crystal import backbone_in, predictor_in, vae_in
from atomrl.checkpoints.predictor import load_predictor
from atomrl.checkpoints.published_crystal import PublishedCrystal, read_published_crystal
from atomrl.checkpoints.vae import load_vae
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.predictor import CrystalPredictor
from atomrl.util.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T", bound=nn.Module)

NAMES = {"vae": "VAE", "ldm": "latent diffusion model", "predictor": "property predictor"}
"""What each kind of checkpoint is called."""


class VAEModule(CrystalVAE):
    """Published name of a crystal VAE."""

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, map_location: Any = "cpu", *, weights_only: bool | None = None
    ) -> CrystalVAE:
        """The VAE of a published checkpoint, or of a folder.

        Args:
            checkpoint_path: of the file or folder.
            map_location: device.
            weights_only: accepted as documented. False changes nothing: loading never runs code from a file.

        Raises:
            UserError: as `import_crystal` and `load_vae`, or another kind of model.
        """
        published = _published(checkpoint_path, "vae", weights_only)
        return _on(load_vae(checkpoint_path) if published is None else vae_in(published), map_location)


class PredictorModule(CrystalPredictor):
    """Published name of a property predictor."""

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, map_location: Any = "cpu", *, weights_only: bool | None = None
    ) -> CrystalPredictor:
        """The predictor of a published checkpoint, or of a folder; arguments and errors as of `VAEModule`."""
        published = _published(checkpoint_path, "predictor", weights_only)
        return _on(load_predictor(checkpoint_path) if published is None else predictor_in(published), map_location)


class LDMModule(CrystalBackbone):
    """Published name of a latent diffusion model."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        vae_ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> CrystalBackbone:
        """The backbone of a published checkpoint, or of a folder; arguments and errors as of `VAEModule`.

        Args:
            checkpoint_path: of the file or folder.
            map_location: device.
            vae_ckpt_path: the VAE of a checkpoint that does not hold it, a file or a folder.
            weights_only: accepted as documented.
        """
        published = _published(checkpoint_path, "ldm", weights_only)
        vae = None if vae_ckpt_path is None else Path(vae_ckpt_path)
        found = load_crystal_backbone(checkpoint_path) if published is None else backbone_in(published, vae)
        for part in (found.vae, found.denoiser, found.conditions):
            if part is not None:
                _on(part, map_location)
        return found


def _published(path: str | Path, kind: str, weights_only: bool | None) -> PublishedCrystal | None:
    """What a published checkpoint holds, if it is of this kind; None for a folder."""
    if weights_only is False:
        log.warning("%s: weights_only=False is accepted, but loading stays safe: nothing in a file runs", path)
    if Path(path).is_dir():
        return None
    found = read_published_crystal(Path(path))
    if found.kind != kind:
        raise UserError(f"{path} holds a {NAMES[found.kind]}, not a {NAMES[kind]}")
    return found


def _on(module: T, device: Any) -> T:
    """A module on a device."""
    return module.to(device)
