"""`atomrl pretrain vae` and `atomrl pretrain ldm`: the two halves of a crystal backbone, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from atomrl.checkpoints.crystal import CrystalBackbone, crystal_backbone_of, save_crystal_backbone
from atomrl.checkpoints.stored import read_stored
from atomrl.checkpoints.vae import load_vae, save_vae
from atomrl.config.switches import Switch
from atomrl.data.crystal_batches import augment, settle
from atomrl.data.packed_crystals import CrystalSplits, PackedCrystals, load_splits
from atomrl.data.sized import full_batches
from atomrl.evaluation.reconstruction import match_rate
from atomrl.networks.conditions import Condition
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig, LossWeights
from atomrl.networks.dit import DiTConfig
from atomrl.networks.lora_options import LoraOptions
from atomrl.policies.crystal import measure_latent_std
from atomrl.pretraining.crystal_conditions import (
    ConditionOptions,
    conditions_of,
    known_crystals,
    require_same_conditions,
    with_all_conditions,
)
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
from atomrl.util.errors import UserError, hinted
from atomrl.util.options import BelowOne, Count, contradiction

OWN_VAE = "runs/pretrain_vae"
FRAMES = {"random": unchanged, "first_atom": settle}


class VAERun(CrystalSession):
    """Options of `atomrl pretrain vae`, given as key=value."""

    save_path: str = OWN_VAE
    match_structures: Count = 48
    """Validation crystals that each validation reconstructs and matches (`val_match_rate`)."""
    model: CrystalVAEConfig = CrystalVAEConfig(width=128, heads=4, feedforward=384, layers=3)
    """Shape of the network."""
    weights: LossWeights = LossWeights()
    """Weights of the loss's terms."""


class LDMRun(CrystalSession):
    """Options of `atomrl pretrain ldm`, given as key=value."""

    switches: ClassVar = (("drop_prob", Switch(("conditions",), bool, "conditions=[...]")),)
    save_path: str = "runs/pretrain_ldm"
    vae: str = OWN_VAE
    """VAE whose latents are learned: a folder, a shipped backbone or a checkpoint."""
    backbone: str | None = None
    """Backbone that is trained further: a shipped name, a folder or a checkpoint; its VAE, the scale of its latents and
    its shape stay; null: none, the denoiser starts from random numbers."""
    conditions: ConditionOptions = Field(default_factory=list)
    """What the denoiser is conditioned on, `[{name: band_gap, kind: value}, ...]`; []: nothing. A `value` (numbers,
    standardised) and a `category` (classes) are the column of the data with the condition's name, or with another one,
    `column: other_name`; `composition` (formula) and `chemical_system` (elements) are read from the crystals.
    Conditions that are new to `backbone` begin without effect."""
    drop_prob: BelowOne = 0.1
    """Chance that training drops all conditions of a crystal, so that guidance has something to compare with."""
    frame: Literal["random", "first_atom"] | None = None
    """How the denoiser sees crystals: `random`, rotated and translated at random, as published; `first_atom`, each
    crystal in one description only, with its first atom always at the same place, so that a small model or set has less
    to learn; null: as `backbone` learned, without one `random`."""
    model: DiTConfig = DiTConfig(hidden=160, depth=6, heads=5)
    """Shape of the denoiser."""
    lora: LoraOptions = LoraOptions()
    """Adapters that are trained in place of the weights of `backbone`; the folder holds them merged."""

    @model_validator(mode="after")
    def _check_start(self) -> LDMRun:
        """Raise UserError for what a backbone fixes and is given beside it."""
        fixed = {"vae": self.vae != OWN_VAE, "model": self.model != type(self).model_fields["model"].default}
        if self.backbone is not None and any(fixed.values()):
            given = " and ".join(f"{{at}}{name}" for name, is_given in fixed.items() if is_given)
            raise contradiction(f"{{at}}backbone={self.backbone} has its own VAE and shape: leave {given} out")
        if self.backbone is None and self.lora.rank:
            raise contradiction(
                f"{{at}}lora.rank={self.lora.rank}: adapters stand beside weights that have learned something; give "
                "{at}backbone, or leave them out"
            )
        return self

    @property
    def learned_from(self) -> dict[str, object]:
        """Options that a run keeps for all its life, by name."""
        asked: dict[str, Any] = {"conditions": [condition.model_dump() for condition in self.conditions]}
        asked |= {"drop_prob": self.drop_prob} if self.conditions else {}
        asked |= {"lora": self.lora.model_dump()} if self.lora.rank else {}
        return {**super().learned_from, "frame": self.frame or "random", "backbone": self.backbone, **asked}


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
    stream, content = crystal_stream(splits, options), splits.train.fingerprint
    card = fit(module, stream, options, [ReconstructionRate(watched)], content)
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
    start, options = _start(options)
    splits = load_splits(options.data)
    vae = load_vae(options.vae) if start is None else start.vae
    check_elements(splits, vae.config)
    if start is None and vae.config.latent != options.model.latent:
        raise UserError(
            f"the VAE in {options.vae} has {vae.config.latent} latent channels, the denoiser {options.model.latent}: "
            f"set model.latent={vae.config.latent}"
        )
    full_batches(len(splits.train), options.train.batch_size)
    conditions, splits = conditions_of(options.conditions, splits, start)
    asked_for = with_all_conditions(splits.train) if conditions else splits.train
    begin(options)
    module = _module(options, splits, vae, start, conditions)
    stream, known = crystal_stream(splits, options), splits.train
    card = fit(module, stream, options, content=known.fingerprint, values=known.properties_fingerprint)
    kept = rounded(module.vae, STORED[options.store])
    card |= {"data": options.data, "frame": options.frame}
    card |= {"reconstruction": _reconstruction(kept, splits.validation, options)}
    card |= {} if start is None else {"started_from": start.origin}
    backbone = _backbone(module, kept, asked_for.histogram(), STORED[options.store])
    remembered = known_crystals(conditions, asked_for, options.train.seed) if conditions else None
    folder = Path(options.save_path)
    save_crystal_backbone(folder, replace(backbone, known=remembered), card)
    return folder


def _start(options: LDMRun) -> tuple[CrystalBackbone | None, LDMRun]:
    """The backbone that is trained further, if there is one, and the options with all that it fixes.

    Raises:
        UserError: it is no crystal backbone, is conditioned on something else, or does not say in which frame it
            learned.
    """
    if options.backbone is None:
        return None, options.changed(frame=options.frame or "random")
    stored = read_stored(options.backbone)
    start = crystal_backbone_of(stored)
    require_same_conditions(options.conditions, start)
    frame = options.frame or stored.card.get("frame")
    if frame not in FRAMES:
        raise UserError(
            f"backbone={options.backbone} does not say in which frame it learned: set frame=random, or "
            "frame=first_atom as for crystal_small"
        )
    return start, options.model_copy(update={"frame": frame})


def _module(
    options: LDMRun,
    splits: CrystalSplits,
    vae: CrystalVAE,
    start: CrystalBackbone | None,
    conditions: tuple[Condition, ...],
) -> PretrainLDM:
    """What is trained, with the weights of the backbone that it starts from."""
    describe = FRAMES[options.frame or "random"]
    if start is None:
        # The stream's first batch holds crystals of one size; their latents need not spread like those of all.
        some = _sample(splits.train, options.train.batch_size, options.train.seed)
        latent_std, shape = measure_latent_std(vae, describe(some)), options.model
    else:
        latent_std, shape = start.latent_std, start.denoiser.config
    module = PretrainLDM(shape, options.train, vae, latent_std, describe, conditions, options.drop_prob)
    if start is not None:
        with hinted(" (lora)"):
            module.start_from(start.denoiser, start.conditions, options.lora)
    return module


def _backbone(module: PretrainLDM, vae: CrystalVAE, sizes: dict[int, int], dtype: torch.dtype) -> CrystalBackbone:
    """The backbone that was trained, with weights of this type."""
    network, embedding = module.learned()
    denoiser = rounded(network, dtype).to(dtype)
    conditions = None if embedding is None else rounded(embedding, dtype).to(dtype)
    return CrystalBackbone(vae.to(dtype), denoiser, float(module.latent_std), sizes, conditions)


def _sample(crystals: PackedCrystals, count: int, seed: int) -> CrystalTensors:
    """At most `count` crystals of all sizes, augmented; the same ones for a seed."""
    return augment(crystals.draw(count, seed).padded(), seed, 0)


def _reconstruction(vae: CrystalVAE, crystals: PackedCrystals, options: CrystalSession) -> dict[str, float]:
    """The card's entry about how well the VAE gives validation crystals back."""
    chosen = _sample(crystals, options.card_structures, options.train.seed).to(next(vae.parameters()).device)
    return {"match_rate": match_rate(vae, chosen), "structures": len(chosen.mask)}
