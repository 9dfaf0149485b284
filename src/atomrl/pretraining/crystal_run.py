"""`atomrl pretrain vae` and `atomrl pretrain ldm`: the two halves of a crystal backbone, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from atomrl.checkpoints.crystal import CrystalBackbone, save_crystal_backbone
from atomrl.checkpoints.vae import load_vae, save_vae
from atomrl.data.crystal_batches import augment, settle
from atomrl.data.packed_crystals import PackedCrystals, load_splits
from atomrl.data.sized import full_batches
from atomrl.evaluation.reconstruction import match_rate
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig, LossWeights
from atomrl.networks.dit import DiTConfig
from atomrl.policies.crystal import measure_latent_std
from atomrl.pretraining.crystal_session import (
    STORED,
    CrystalSession,
    check_elements,
    crystal_stream,
    rounded,
)
from atomrl.pretraining.ldm import PretrainLDM, unchanged
from atomrl.pretraining.session import begin, fit, options_from
from atomrl.pretraining.vae import PretrainVAE, ReconstructionRate
from atomrl.structures.tensors import CrystalTensors
from atomrl.util.errors import UserError
from atomrl.util.options import Count

FRAMES = {"random": unchanged, "first_atom": settle}


class VAERun(CrystalSession):
    """Options of `atomrl pretrain vae`, given as key=value."""

    save_path: str = "runs/pretrain_vae"
    match_structures: Count = 48
    """Validation crystals whose reconstruction each validation matches."""
    model: CrystalVAEConfig = CrystalVAEConfig(width=128, heads=4, feedforward=384, layers=3)
    """Shape of the network."""
    weights: LossWeights = LossWeights()
    """Of the loss's terms."""


class LDMRun(CrystalSession):
    """Options of `atomrl pretrain ldm`, given as key=value."""

    save_path: str = "runs/pretrain_ldm"
    vae: str = "runs/pretrain_vae"
    """Folder of the VAE whose latents are learned, or whatever else `load_vae` takes."""
    frame: Literal["random", "first_atom"] = "random"
    """`random`, crystals rotated and translated at random, as published; or `first_atom`, each crystal always in the
    same description (`settle`), which is less to learn for a small model or a small set."""
    model: DiTConfig = DiTConfig(hidden=160, depth=6, heads=5)
    """Shape of the denoiser."""

    @property
    def learned_from(self) -> dict[str, object]:
        """Options that a run keeps for all its life, by name."""
        return {**super().learned_from, "frame": self.frame}


def pretrain_vae(overrides: Sequence[str]) -> Path:
    """Train the VAE to the end, or continue; the folder then holds its weights and card.

    Raises:
        UserError: an unknown option or one that cannot be, or crystals that are not there or do not fit the model.
    """
    options = options_from(VAERun, overrides, "pretrain vae")
    dtype = STORED[options.store]
    splits = load_splits(options.data)
    check_elements(splits, options.model)
    full_batches(len(splits.train), options.train.batch_size)
    begin(options)
    module = PretrainVAE(options.model, options.train, options.weights)
    watched = _sample(splits.validation, options.match_structures, options.train.seed)
    card = fit(module, crystal_stream(splits, options), options, [ReconstructionRate(watched)])
    folder = Path(options.save_path)
    vae = rounded(module.average, dtype)
    card |= {"data": options.data, "reconstruction": _reconstruction(vae, splits.validation, options)}
    save_vae(folder, vae.to(dtype), card)
    return folder


def pretrain_ldm(overrides: Sequence[str]) -> Path:
    """Train the denoiser to the end, or continue; the folder then holds the whole backbone and its card.

    Raises:
        UserError: an unknown option or one that cannot be, no VAE, or crystals that are not there or do not fit it.
    """
    options = options_from(LDMRun, overrides, "pretrain ldm")
    dtype = STORED[options.store]
    splits = load_splits(options.data)
    describe = FRAMES[options.frame]
    vae = load_vae(options.vae)
    check_elements(splits, vae.config)
    if vae.config.latent != options.model.latent:
        raise UserError(
            f"the VAE in {options.vae} has {vae.config.latent} latent channels, the denoiser {options.model.latent}: "
            f"set model.latent={vae.config.latent}"
        )
    full_batches(len(splits.train), options.train.batch_size)
    begin(options)
    # The stream's first batch holds crystals of one size; their latents need not spread like those of all.
    some = _sample(splits.train, options.train.batch_size, options.train.seed)
    module = PretrainLDM(options.model, options.train, vae, measure_latent_std(vae, describe(some)), describe)
    card = fit(module, crystal_stream(splits, options), options)
    folder = Path(options.save_path)
    kept = rounded(module.vae, dtype)
    card |= {"data": options.data, "frame": options.frame}
    card |= {"reconstruction": _reconstruction(kept, splits.validation, options)}
    denoiser, sizes = rounded(module.average, dtype), splits.train.histogram()
    backbone = CrystalBackbone(kept.to(dtype), denoiser.to(dtype), float(module.latent_std), sizes)
    save_crystal_backbone(folder, backbone, card)
    return folder


def _sample(crystals: PackedCrystals, count: int, seed: int) -> CrystalTensors:
    """At most `count` crystals of all sizes, augmented; the same ones for a seed."""
    return augment(crystals.draw(count, seed).padded(), seed, 0)


def _reconstruction(vae: CrystalVAE, crystals: PackedCrystals, options: CrystalSession) -> dict[str, float]:
    """The card's entry about how well the VAE gives validation crystals back."""
    chosen = _sample(crystals, options.card_structures, options.train.seed).to(next(vae.parameters()).device)
    return {"match_rate": match_rate(vae, chosen), "structures": len(chosen.mask)}
