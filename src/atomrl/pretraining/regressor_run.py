"""`atomrl pretrain regressor`: a property of QM9's molecules out of their geometry, resumable, its error stated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from atomrl.checkpoints.regressor import save_regressor
from atomrl.data.batches import SizedBatches, pad, padded_batches
from atomrl.data.qm9 import ATOMIC_NUMBERS, MoleculeSet, load_qm9, split
from atomrl.data.qm9_properties import check_names, distributions, unit_of, with_properties
from atomrl.data.sized import full_batches
from atomrl.networks.molecule_regressor import MoleculeRegressor, RegressorConfig
from atomrl.pretraining.base import PretrainConfig, StreamData
from atomrl.pretraining.regressor import PretrainRegressor
from atomrl.pretraining.session import Session, begin, fit, options_from
from atomrl.util.errors import UserError

CHUNK = 256
"""Molecules that are padded together when errors are measured."""


class RegressorRun(Session):
    """Options of `atomrl pretrain regressor`, given as key=value; see `Session` for those of every pre-training."""

    save_path: str = "runs/pretrain_regressor"
    target: str = "alpha"
    """Property of QM9 that is predicted, by the name that `atomrl pretrain edm` has for it in `context`."""
    half: Literal["first", "second"] | None = "first"
    """Half of QM9's training molecules to learn from, 50,000; null: all. A regressor that judges a conditional model
    learns from the half that the model did not."""
    model: RegressorConfig = RegressorConfig()
    """Shape of the network."""
    train: PretrainConfig = PretrainConfig(steps=20_000, decay_steps=10_000)

    @property
    def learned_from(self) -> dict[str, object]:
        """See `Session.learned_from`."""
        return {**super().learned_from, "half": self.half}


def pretrain_regressor(overrides: Sequence[str]) -> Path:
    """Train to the end, or continue; the folder then holds the regressor and its card.

    Raises:
        UserError: an unknown option or one that cannot be, or QM9 is not installed.
    """
    options = options_from(RegressorRun, overrides, "pretrain regressor")
    check_names([options.target], "target")
    if missing := [symbol for symbol in ATOMIC_NUMBERS if symbol not in options.model.elements]:
        raise UserError(f"model.elements={list(options.model.elements)}: QM9 also holds {', '.join(missing)}; add them")
    train, folder, name = options.train, Path(options.save_path), options.target
    parts = split(with_properties(load_qm9(), [name]))
    known = parts[options.half or "train"]
    full_batches(len(known), train.batch_size)
    begin(options)
    network = MoleculeRegressor(options.model, name)
    everything = pad(known)
    network.fit_reference(everything.numbers, everything.properties[name])
    module = PretrainRegressor(network, train)
    validation = islice(SizedBatches(parts["validation"], train.batch_size, train.seed), options.val_batches)
    card = fit(
        module, StreamData(partial(SizedBatches, known, train.batch_size, train.seed), list(validation)), options
    )
    judged = errors(module.average.eval(), parts["test"], known)
    unit = unit_of(name)
    print(
        f"{name}: mean absolute error {judged['mae']:.4g} {unit} on {judged['molecules']:,} test molecules; "
        f"of the mean per size {judged['mae_by_size']:.4g}, of composition alone {judged['mae_by_composition']:.4g}"
    )
    save_regressor(folder, module.average, unit, judged, {**card, "data": {"from": "QM9", "half": options.half}})
    return folder


def errors(network: MoleculeRegressor, molecules: MoleculeSet, known: MoleculeSet) -> dict[str, float]:
    """How far predictions are off.

    Args:
        network: of the property.
        molecules: with its values, none of them learned from.
        known: that were learned from.

    Returns:
        `mae`: mean absolute error; `mae_by_size`: that of the mean of the learned molecules of the same size;
        `mae_by_composition`: of the network's linear part; `molecules`: how many.
    """
    name, order = network.target, np.argsort(molecules.sizes, kind="stable")
    values = torch.from_numpy(molecules.properties[name][order])
    predicted, linear = [], []
    for batch in padded_batches(molecules, CHUNK):
        predicted.append(network.predict(batch)[name].cpu().double())
        linear.append(network.linear(batch.numbers.to(network.reference.device)).detach().cpu().double())
    by_size = distributions(known)[name].mean_of(torch.from_numpy(molecules.sizes[order]))
    return {
        "mae": float((torch.cat(predicted) - values).abs().mean()),
        "mae_by_size": float((by_size - values).abs().nanmean()),
        "mae_by_composition": float((torch.cat(linear) - values).abs().mean()),
        "molecules": len(molecules),
    }
