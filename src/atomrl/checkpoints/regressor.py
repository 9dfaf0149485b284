"""Regressors of a molecular property on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomrl.checkpoints.folder import CARD, config_from, fill, read_card, read_folder, write_folder
from atomrl.checkpoints.shipped import REGRESSORS, located
from atomrl.networks.molecule_regressor import MoleculeRegressor, RegressorConfig
from atomrl.util.errors import UserError

HOW = "train one with `atomrl pretrain regressor`"


@dataclass(frozen=True)
class LoadedRegressor:
    """What a folder holds.

    Attributes:
        network: in evaluation mode.
        unit: of the property.
        held_out: numbers about molecules that it was not trained on: `mae` and others.
    """

    network: MoleculeRegressor
    unit: str
    held_out: Mapping[str, float]


def save_regressor(
    folder: Path, network: MoleculeRegressor, unit: str, held_out: Mapping[str, float], card: Mapping[str, Any]
) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights.

    Raises:
        UserError: the folder cannot be written.
    """
    own = {"regressor": network.config.model_dump(), "property": network.target, "unit": unit}
    write_folder(folder, network.state_dict(), {**own, "held_out": dict(held_out), **card})


def is_regressor(where: str | Path) -> bool:
    """Whether the card of a folder, or of a shipped model, says that it is a regressor of molecules.

    Raises:
        UserError: the folder cannot be read.
    """
    folder = located(where)
    return (folder / CARD).is_file() and "regressor" in read_card(folder, "predictor")


def property_of(where: str | Path) -> str:
    """Name of the property that a regressor, as `load_regressor` takes it, predicts, by its card alone.

    Raises:
        UserError: there is no such card.
    """
    folder = located(where)
    card = read_card(folder, "regressor")
    if "property" not in card:
        raise UserError(f"{folder} holds no regressor: its card lacks the entry 'property'; {HOW}")
    return str(card["property"])


def load_regressor(where: str | Path) -> LoadedRegressor:
    """A regressor.

    Args:
        where: a folder that `save_regressor` wrote, or the name of a shipped one.

    Raises:
        UserError: nothing there, truncated, no regressor in it, entries missing, or tensors that do not fit.
    """
    folder = located(where)
    if not folder.is_dir():
        raise UserError(
            f"no regressor at {folder}: give one of {', '.join(REGRESSORS)}, a folder with model.safetensors and "
            f"model.json, or {HOW}"
        )
    card, weights = read_folder(folder, "regressor")
    for entry in ("regressor", "property", "unit", "held_out"):
        if entry not in card:
            raise UserError(f"{folder} holds no regressor: its card lacks the entry '{entry}'; {HOW}")
    held_out = card["held_out"]
    if not isinstance(held_out, dict) or not isinstance(held_out.get("mae"), float):
        raise UserError(f"{folder}: its card's held_out={held_out!r} must hold the error on other molecules, mae")
    config = config_from(RegressorConfig, card["regressor"], str(folder))
    network = MoleculeRegressor(config, str(card["property"]))
    fill(network, weights, str(folder))
    return LoadedRegressor(network.eval(), str(card["unit"]), held_out)
