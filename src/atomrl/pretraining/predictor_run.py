"""`atomrl pretrain predictor`: a property predictor on a VAE's latents, resumable, judged against the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from atomrl.checkpoints.predictor import save_predictor
from atomrl.checkpoints.vae import load_vae
from atomrl.data.crystal_batches import augmented
from atomrl.data.packed_crystals import CrystalSplits, PackedCrystals, load_splits
from atomrl.data.sized import full_batches
from atomrl.networks.predictor import CHUNK, CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.crystal_session import STORED, CrystalSession, check_elements, crystal_stream, rounded
from atomrl.pretraining.predictor import PretrainPredictor
from atomrl.pretraining.session import begin, fit, options_from
from atomrl.util.errors import UserError
from atomrl.util.options import Count


class PredictorRun(CrystalSession):
    """Options of `atomrl pretrain predictor`, given as key=value.

    `store` is the type of the VAE's weights in the folder; the predictor's own are few and stay float32.
    """

    save_path: str = "runs/pretrain_predictor"
    vae: str = "crystal_small"
    """That reads the crystals: a folder, shipped backbone or checkpoint, as `load_vae` takes it."""
    targets: list[str] = Field(default_factory=list)
    """Properties to predict, columns of numbers of the data; `name:column` gives the property another name than its
    column has. A crystal that lacks some of them counts with the others, one that lacks all is left out."""
    card_structures: Count = 10_000
    model: PredictorConfig = PredictorConfig()
    """Shape of the predictor."""
    train: PretrainConfig = PretrainConfig(steps=20_000, decay_steps=5_000)


def pretrain_predictor(overrides: Sequence[str]) -> Path:
    """Train the predictor to the end, or continue; the folder then holds it, its VAE and their card.

    Raises:
        UserError: an unknown option or one that cannot be, no VAE, or crystals that are not there, lack a property or
            do not fit the VAE.
    """
    options = options_from(PredictorRun, overrides, "pretrain predictor")
    dtype = STORED[options.store]
    splits = load_splits(options.data)
    columns = _columns(options.targets, splits)
    splits = CrystalSplits(
        with_properties(splits.train, columns, "training"), with_properties(splits.validation, columns, "validation")
    )
    vae = load_vae(options.vae)
    check_elements(splits, vae.config)
    full_batches(len(splits.train), options.train.batch_size)
    begin(options)
    head = PropertyHead(options.model.inputs(vae.config), tuple(columns), options.model)
    standardize(head, splits.train)
    module = PretrainPredictor(head, options.model, options.train, vae)
    card = fit(module, crystal_stream(splits, options), options)
    kept = CrystalPredictor(rounded(module.vae, dtype), module.average, options.model)
    judged = errors(kept, splits.validation.draw(options.card_structures, options.train.seed), options.train.seed)
    for name, found in judged.items():
        print(
            f"{name}: mean absolute error {found['mae']:.4g} on {found['structures']:,} validation crystals, "
            f"that of predicting the training mean {found['mae_of_the_mean']:.4g}"
        )
    kept.vae.to(dtype)
    folder = Path(options.save_path)
    save_predictor(folder, kept, card | {"data": options.data, "vae_from": options.vae, "properties": judged})
    return folder


def with_properties(crystals: PackedCrystals, columns: Mapping[str, str], split: str) -> PackedCrystals:
    """The crystals of which some property is known, with these properties alone; says how many those are.

    Args:
        crystals: with all their properties.
        columns: {property: its column}.
        split: its name, for messages.

    Raises:
        UserError: a column is missing or has no finite value.
    """
    properties = {}
    for name, column in columns.items():
        if column in crystals.refused:
            raise UserError(
                f"the {split} crystals have a column {column!r} that is no property, since {crystals.refused[column]}: "
                "write numbers without a unit, and leave missing ones empty"
            )
        if column not in crystals.properties:
            raise UserError(
                f"the {split} crystals have no property {column!r}, they have {_list(crystals.properties)}: "
                f"add a column of numbers of this name, or name another, targets=[{name}:column]"
            )
        values = crystals.properties[column]
        known = int(np.isfinite(values).sum())
        if not known:
            raise UserError(f"the {split} crystals have a column {column!r} without a number: nothing to learn")
        print(f"{name}: {known:,} of {len(crystals):,} {split} crystals have it")
        properties[name] = np.where(np.isfinite(values), values, np.nan)
    some = ~np.isnan(np.stack(list(properties.values()))).all(axis=0)
    return replace(crystals, properties=properties).select(np.flatnonzero(some))


def standardize(head: PropertyHead, crystals: PackedCrystals) -> None:
    """Give a head mean and standard deviation of its properties among these crystals.

    Raises:
        UserError: a property is the same for all.
    """
    for place, name in enumerate(head.targets):
        values = crystals.properties[name]
        unit = float(np.nanmax(np.abs(values))) or 1.0  # neither squares nor sums may leave float64
        mean, spread = unit * float(np.nanmean(values / unit)), unit * float(np.nanstd(values / unit))
        if np.nanmin(values) == np.nanmax(values) or not spread > 0:
            raise UserError(f"all training crystals have the same {name}, {mean:g}: nothing to learn")
        head.mean[place], head.std[place] = mean, spread


def errors(predictor: CrystalPredictor, crystals: PackedCrystals, seed: int) -> dict[str, dict[str, float]]:
    """How far predictions are off, by property.

    Args:
        predictor: of these properties.
        crystals: with their values; each is turned and shifted at random, once.
        seed: of that.

    Returns:
        `mae`: mean absolute error; `mae_of_the_mean`: that of predicting the training mean; `structures`: that have
        the property, without any it is not here; `mean` and `std` of the training set.
    """
    device = predictor.head.mean.device
    parts = []
    for step, start in enumerate(range(0, len(crystals), CHUNK)):
        rows = np.arange(start, min(start + CHUNK, len(crystals)))
        with torch.no_grad():
            parts.append(predictor(augmented(crystals.select(rows), seed, step).to(device).crystals).cpu().numpy())
    predicted = np.concatenate(parts)
    means, stds = predictor.head.mean.tolist(), predictor.head.std.tolist()
    found = {}
    for place, name in enumerate(predictor.targets):
        known = np.isfinite(crystals.properties[name])
        values = crystals.properties[name][known]
        if not len(values):
            continue  # a few crystals were drawn, and none has it
        found[name] = {
            "mae": float(np.abs(predicted[known, place] - values).mean()),
            "mae_of_the_mean": float(np.abs(means[place] - values).mean()),
            "structures": len(values),
            "mean": means[place],
            "std": stds[place],
        }
    return found


def _columns(targets: Sequence[str], splits: CrystalSplits) -> dict[str, str]:
    """{property: its column} out of `name` and `name:column`.

    Raises:
        UserError: no target, one twice, or an empty name.
    """
    # an element of a list on the command line can be a mapping: `[gap: column]`
    pairs = [target.partition(":") for target in targets if isinstance(target, str)]
    columns = {name: column if colon else name for name, colon, column in pairs}
    if not columns or len(columns) < len(targets) or not all(columns) or not all(columns.values()):
        raise UserError(
            f"targets={list(targets)}: name each property to predict once, e.g. targets=[formation_energy_per_atom]; "
            f"the data has {_list(splits.train.properties)}"
        )
    return columns


def _list(names: Mapping[str, object]) -> str:
    """Names for a message."""
    return ", ".join(sorted(names)) or "none"
