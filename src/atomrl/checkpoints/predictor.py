"""Property predictors on disk: the trained perceptron and the VAE that it reads, in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.checkpoints.folder import config_from, fill, read_folder, write_folder
from atomrl.checkpoints.stored import Stored
from atomrl.checkpoints.vae import PREFIX as VAE
from atomrl.checkpoints.vae import vae_of
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.util.errors import UserError

HEAD = "predictor."
"""Of the perceptron's names in the file."""

HOW = "train one with `atomrl pretrain predictor`"


def save_predictor(folder: Path, predictor: CrystalPredictor, card: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights.

    Raises:
        UserError: the folder cannot be written.
    """
    weights = {
        prefix + name: tensor
        for prefix, part in ((VAE, predictor.vae), (HEAD, predictor.head))
        for name, tensor in part.state_dict().items()
    }
    own = {
        "vae": predictor.vae.config.model_dump(),
        "predictor": predictor.config.model_dump(),
        "targets": list(predictor.targets),
    }
    write_folder(folder, weights, {**own, **card})


def load_predictor(where: str | Path) -> CrystalPredictor:
    """The predictor of a folder that `save_predictor` wrote, in evaluation mode.

    Raises:
        UserError: nothing there, truncated, no predictor in it, entries unknown, or tensors that do not fit the model
            or are not finite.
    """
    folder = Path(where)
    if not folder.is_dir():
        raise UserError(f"no predictor at {folder}: give a folder with model.safetensors and model.json, or {HOW}")
    card, weights = read_folder(folder, "predictor")
    origin = str(folder)
    for entry in ("predictor", "targets"):
        if entry not in card:
            raise UserError(f"{origin} holds no predictor: its card lacks the entry '{entry}'; {HOW}")
    vae = vae_of(Stored(card, weights, origin, trained=False))
    config = config_from(PredictorConfig, card["predictor"], origin)
    head = PropertyHead(config.inputs(vae.config), _targets(card["targets"], origin), config)
    own = {name.removeprefix(HEAD): tensor for name, tensor in weights.items() if name.startswith(HEAD)}
    fill(head, own, origin)
    return CrystalPredictor(vae, head, config)


def _targets(names: Any, origin: str) -> tuple[str, ...]:
    """Names of the properties."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{origin}: targets={names!r} must be a list of names of properties")
    return tuple(names)
