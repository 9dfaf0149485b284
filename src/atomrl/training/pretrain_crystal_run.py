"""`atomrl pretrain vae` and `atomrl pretrain ldm`: the two halves of a crystal backbone, resumable."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from atomrl.checkpoints.crystal import CrystalBackbone, save_crystal_backbone
from atomrl.checkpoints.vae import load_vae, save_vae
from atomrl.data.crystal_batches import CrystalBatch, CrystalBatches, augment, fixed_batches
from atomrl.data.packed_crystals import SHIPPED, CrystalSplits, PackedCrystals, load_splits
from atomrl.errors import UserError
from atomrl.metrics.reconstruction import match_rate
from atomrl.networks.crystal_vae import CrystalTensors, CrystalVAE, CrystalVAEConfig, LossWeights
from atomrl.networks.dit import DiTConfig
from atomrl.policies.crystal import measure_latent_std
from atomrl.training.pretrain_ldm import PretrainLDM
from atomrl.training.pretrain_session import Session, begin, fit, options_from
from atomrl.training.pretrain_vae import PretrainVAE, ReconstructionRate
from atomrl.training.pretraining import StreamData

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

M = TypeVar("M", bound=nn.Module)


@dataclass
class CrystalSession(Session):
    """Options of both commands; see `Session` for those of every pre-training.

    Attributes:
        data: `prototypes`, or a folder with a crystal set or with `train.csv` and `val.csv`.
        store: type of the weights in the folder, `float32`, `float16` or `bfloat16`; the card's numbers are those of
            the stored weights. Loading gives float32 again.
        card_structures: validation crystals whose reconstruction is matched for the card.
    """

    data: str = SHIPPED
    store: str = "float32"
    card_structures: int = 1000


@dataclass
class VAERun(CrystalSession):
    """Options of `atomrl pretrain vae`, given as key=value.

    Attributes:
        match_structures: validation crystals whose reconstruction each validation matches.
        model: shape of the network.
        weights: of the loss's terms.
    """

    save_path: str = "runs/pretrain_vae"
    match_structures: int = 48
    model: CrystalVAEConfig = field(
        default_factory=lambda: CrystalVAEConfig(width=128, heads=4, feedforward=384, layers=3)
    )
    weights: LossWeights = field(default_factory=LossWeights)


@dataclass
class LDMRun(CrystalSession):
    """Options of `atomrl pretrain ldm`, given as key=value.

    Attributes:
        vae: folder of the VAE whose latents are learned.
        model: shape of the denoiser.
    """

    save_path: str = "runs/pretrain_ldm"
    vae: str = "runs/pretrain_vae"
    model: DiTConfig = field(default_factory=lambda: DiTConfig(hidden=160, depth=6, heads=5))


def pretrain_vae(overrides: Sequence[str]) -> Path:
    """Train the VAE to the end, or continue; the folder then holds its weights and card.

    Raises:
        UserError: an unknown option or one that cannot be, or crystals that are not there or do not fit the model.
    """
    options = options_from(VAERun, overrides, "pretrain vae")
    _check_heads(options.model.width, options.model.heads, "model.width")
    dtype = _stored_type(options.store)
    splits = load_splits(options.data)
    _check_elements(splits, options.model)
    begin(options)
    module = PretrainVAE(options.model, options.train, options.weights)
    watched = _sample(splits.validation, options.match_structures, options.train.seed)
    card = fit(module, _data(splits, options), options, [ReconstructionRate(watched)])
    folder = Path(options.save_path)
    vae = _rounded(module.average, dtype)
    card |= {"data": options.data, "reconstruction": _reconstruction(vae, splits.validation, options)}
    save_vae(folder, vae.to(dtype), card)
    return folder


def pretrain_ldm(overrides: Sequence[str]) -> Path:
    """Train the denoiser to the end, or continue; the folder then holds the whole backbone and its card.

    Raises:
        UserError: an unknown option or one that cannot be, no VAE, or crystals that are not there or do not fit it.
    """
    options = options_from(LDMRun, overrides, "pretrain ldm")
    _check_heads(options.model.hidden, options.model.heads, "model.hidden")
    dtype = _stored_type(options.store)
    splits = load_splits(options.data)
    vae = load_vae(Path(options.vae))
    _check_elements(splits, vae.config)
    if vae.config.latent != options.model.latent:
        raise UserError(
            f"the VAE in {options.vae} has {vae.config.latent} latent channels, the denoiser {options.model.latent}: "
            f"set model.latent={vae.config.latent}"
        )
    begin(options)
    # The stream's first batch holds crystals of one size; their latents need not spread like those of all.
    latent_std = measure_latent_std(vae, _sample(splits.train, options.train.batch_size, options.train.seed))
    module = PretrainLDM(options.model, options.train, vae, latent_std)
    card = fit(module, _data(splits, options), options)
    folder = Path(options.save_path)
    kept = _rounded(module.vae, dtype)
    card |= {"data": options.data, "reconstruction": _reconstruction(kept, splits.validation, options)}
    denoiser, sizes = _rounded(module.average, dtype), splits.train.histogram()
    backbone = CrystalBackbone(kept.to(dtype), denoiser.to(dtype), float(module.latent_std), sizes)
    save_crystal_backbone(folder, backbone, card)
    return folder


def _data(splits: CrystalSplits, options: CrystalSession) -> StreamData[CrystalBatch]:
    """Training stream and validation batches, both augmented."""
    size, seed = options.train.batch_size, options.train.seed
    validation = fixed_batches(splits.validation, size, seed, options.val_batches)
    return StreamData(partial(CrystalBatches, splits.train, size, seed), validation)


def _sample(crystals: PackedCrystals, count: int, seed: int) -> CrystalTensors:
    """At most `count` crystals of all sizes, augmented; the same ones for a seed."""
    return augment(crystals.draw(count, seed).padded(), seed, 0)


def _reconstruction(vae: CrystalVAE, crystals: PackedCrystals, options: CrystalSession) -> dict[str, float]:
    """The card's entry about how well the VAE gives validation crystals back."""
    chosen = _sample(crystals, options.card_structures, options.train.seed).to(next(vae.parameters()).device)
    return {"match_rate": match_rate(vae, chosen), "structures": len(chosen.mask)}


def _rounded(network: M, dtype: torch.dtype) -> M:
    """A float32 copy with the numbers that storing as `dtype` leaves."""
    return copy.deepcopy(network).to(dtype).float()


def _stored_type(name: str) -> torch.dtype:
    """Type of the stored weights."""
    if name not in STORED:
        raise UserError(f"store={name}: use one of {', '.join(STORED)}")
    return STORED[name]


def _check_heads(width: int, heads: int, name: str) -> None:
    """Refuse a width that the attention's heads cannot share."""
    if width % heads or width % 2:
        raise UserError(f"{name}={width} with model.heads={heads}: it must be even and a multiple of the heads")


def _check_elements(splits: CrystalSplits, config: CrystalVAEConfig) -> None:
    """Refuse crystals with elements that the VAE has no row for."""
    heaviest = max(int(part.numbers.max()) for part in (splits.train, splits.validation))
    if heaviest >= config.elements:
        raise UserError(
            f"the crystals hold the element {heaviest}, the VAE knows those below {config.elements}: "
            f"train one with model.elements={heaviest + 1}"
        )
