"""`atomrl pretrain predictor`: a property predictor on a VAE's latents, resumable, judged against the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from atomrl.checkpoints.predictor import save_predictor
from atomrl.checkpoints.vae import load_vae
from atomrl.data.packed_crystals import TEST, CrystalSplits, PackedCrystals, load_splits, load_test
from atomrl.data.sized import full_batches
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.crystal_session import STORED, CrystalSession, check_elements, crystal_stream, rounded
from atomrl.pretraining.predictor import PretrainPredictor
from atomrl.pretraining.predictor_errors import Common, draw_parity, predictions
from atomrl.pretraining.property_columns import listed, mean_and_std, number_values
from atomrl.pretraining.session import begin, fit, options_from
from atomrl.util.errors import UserError
from atomrl.util.options import Count

PARITY = "parity.svg"
"""Beside the predictor: what it says against what is true."""


class PredictorRun(CrystalSession):
    """Options of `atomrl pretrain predictor`, given as key=value.

    `store` is the type of the VAE's weights in the folder; the predictor's own are few and stay float32.
    """

    save_path: str = "runs/pretrain_predictor"
    vae: str = "crystal_small"
    """VAE that reads the crystals: a folder, a shipped backbone or a checkpoint."""
    targets: list[str] = Field(default_factory=list)
    """Properties to predict: columns of numbers in the data; `name:column` gives the property another name than its
    column has. A crystal that lacks some of them counts for the others; one that lacks all is left out."""
    card_structures: Count = 10_000
    """At most this many validation crystals, and as many test crystals, measure the errors for the card."""
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
    splits, test = load_splits(options.data), load_test(options.data)
    columns = _columns(options.targets, splits)
    splits = CrystalSplits(
        with_properties(splits.train, columns, "training"), with_properties(splits.validation, columns, "validation")
    )
    test = None if test is None else with_properties(test, columns, TEST)
    vae = load_vae(options.vae)
    check_elements(splits, vae.config)
    full_batches(len(splits.train), options.train.batch_size)
    begin(options)
    head = PropertyHead(options.model.inputs(vae.config), tuple(columns), options.model)
    standardize(head, splits.train)
    module = PretrainPredictor(head, options.model, options.train, vae)
    stream, known = crystal_stream(splits, options), splits.train
    card = fit(module, stream, options, content=known.fingerprint, values=known.properties_fingerprint)
    kept = CrystalPredictor(rounded(module.vae, dtype), module.average, options.model)
    folder = Path(options.save_path)
    judged = _judge(kept, splits, test, options, folder)
    kept.vae.to(dtype)
    save_predictor(folder, kept, card | {"data": options.data, "vae_from": options.vae, **judged})
    return folder


def _judge(
    predictor: CrystalPredictor,
    splits: CrystalSplits,
    test: PackedCrystals | None,
    options: PredictorRun,
    folder: Path,
) -> dict[str, dict[str, dict[str, float]]]:
    """Errors on validation and, where the data has such, on test crystals: printed, drawn, and for the card."""
    common = {name: Common.of(values) for name, values in splits.train.properties.items()}
    parts = {"validation": splits.validation} | ({} if test is None else {TEST: test})
    found = {
        split: predictions(
            predictor, part.draw(options.card_structures, options.train.seed), options.train.seed, common
        )
        for split, part in parts.items()
    }
    for split, of_split in found.items():
        for one in of_split:
            print("\n".join(one.lines(split)))
    last = list(found)[-1]
    draw_parity(found[last], last, folder / PARITY)
    names = {"validation": "properties", TEST: "properties_of_test"}
    return {names[split]: {one.name: one.summary() for one in of_split} for split, of_split in found.items()}


def with_properties(crystals: PackedCrystals, columns: Mapping[str, str], split: str) -> PackedCrystals:
    """The crystals of which some property is known, with these properties alone; says how many those are.

    Args:
        crystals: with all their properties.
        columns: {property: its column}.
        split: its name, for messages.

    Raises:
        UserError: a column is missing or has no finite value.
    """
    properties = {
        name: number_values(crystals, name, column, split, f"targets=[{name}:column]")
        for name, column in columns.items()
    }
    some = ~np.isnan(np.stack(list(properties.values()))).all(axis=0)
    return replace(crystals, properties=properties).select(np.flatnonzero(some))


def standardize(head: PropertyHead, crystals: PackedCrystals) -> None:
    """Give a head mean and standard deviation of its properties among these crystals.

    Raises:
        UserError: a property is the same for all.
    """
    for place, name in enumerate(head.targets):
        head.mean[place], head.std[place] = mean_and_std(name, crystals.properties[name])


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
            f"the data has {listed(splits.train.properties)}"
        )
    return columns
