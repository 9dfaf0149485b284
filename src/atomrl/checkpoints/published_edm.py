"""Published EDM weights, `args.pickle` and `generative_model_ema.npy`, as a backbone folder of this package.

The settings are a pickled `argparse.Namespace`: a reader that knows this one class, and calls nothing, reads it. The
weights are a file of torch.save, read as tensors alone. Parameter names are the same here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from atomrl.checkpoints.backbone import save_backbone
from atomrl.checkpoints.folder import config_from, fill, require_tensors, sizes_of
from atomrl.checkpoints.stored import read_stored
from atomrl.checkpoints.torch_file import read_torch
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.util.errors import UserError, first_line
from atomrl.util.plain_pickle import read_plain

ARGUMENTS, WEIGHTS = "args.pickle", "generative_model_ema.npy"

QM9 = ("H", "C", "N", "O", "F")
GEOM = ("H", "B", "C", "N", "O", "F", "Al", "Si", "P", "S", "Cl", "As", "Br", "I", "Hg", "Bi")
ELEMENTS = {"qm9": QM9, "qm9_second_half": QM9, "geom": GEOM}
"""Order of the one-hot columns, by data set."""

RENAMED = {
    "nf": "hidden",
    "n_layers": "layers",
    "inv_sublayers": "inv_sublayers",
    "attention": "attention",
    "tanh": "tanh",
    "norm_constant": "norm_constant",
    "sin_embedding": "sin_embedding",
    "normalization_factor": "normalization_factor",
    "include_charges": "include_charges",
    "normalize_factors": "normalize_factors",
    "context_node_nf": "context_features",
    "diffusion_steps": "diffusion_steps",
    "diffusion_noise_precision": "noise_precision",
}
"""{setting: option of `EDMConfig`}."""

ONLY = {
    "model": "egnn_dynamics",
    "probabilistic_model": "diffusion",
    "diffusion_noise_schedule": "polynomial_2",
    "condition_time": True,
    "remove_h": False,
}
"""Settings that only one value suits here."""

REPEATED = "model."
"""Prefix under which a published state dict may hold everything once more."""


NAMESPACE = {("argparse", "Namespace"): SimpleNamespace}
"""The one class that the settings may be of, and what stands in for it."""


def import_edm(folder: Path, output: Path, sizes: Path | None = None) -> EDMConfig:
    """Write a backbone folder out of a published one.

    Args:
        folder: with args.pickle and generative_model_ema.npy.
        output: for model.safetensors and model.json.
        sizes: JSON, {atoms: count} of the training set; None: QM9's, for a model of QM9.

    Raises:
        UserError: a file is missing or damaged, asks for code, describes another kind of model, or lacks a setting.
    """
    settings = read_arguments(folder / ARGUMENTS)
    config = published_config(settings, str(folder / ARGUMENTS))
    network = EDMNetwork(config)
    fill(network, published_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    histogram = _sizes(sizes, settings["dataset"])
    about = {"origin": f"imported from {folder.name}", "conditioning": list(settings["conditioning"])}
    save_backbone(output, network, histogram, about)
    return config


def read_arguments(path: Path) -> dict[str, Any]:
    """The settings in args.pickle.

    Raises:
        UserError: it cannot be read, or holds something else; nothing of it has run.
    """
    remedy = "; it was not loaded, since that could run code from it"
    held = read_plain(path, "pickled argparse.Namespace of plain values", remedy, NAMESPACE)
    if not isinstance(held, SimpleNamespace):
        raise UserError(f"{path} holds {type(held).__name__}, not the settings of a training (argparse.Namespace)")
    return dict(vars(held))


def published_config(settings: Mapping[str, Any], origin: str) -> EDMConfig:
    """What the settings say about the network.

    Raises:
        UserError: a setting is missing, or describes a model that is none here.
    """
    missing = sorted({*RENAMED, *ONLY, "dataset", "conditioning"} - settings.keys())
    if missing:
        raise UserError(f"{origin} lacks {', '.join(missing)}: is it the args.pickle of an EDM training?")
    for name, value in ONLY.items():
        if settings[name] != value:
            raise UserError(f"{origin}: {name}={settings[name]!r}, and only {value!r} can be imported")
    dataset = settings["dataset"]
    if dataset not in ELEMENTS:
        raise UserError(
            f"{origin}: dataset={dataset!r}: its elements are not known, only those of {', '.join(ELEMENTS)}"
        )
    options = {ours: settings[name] for name, ours in RENAMED.items()}
    options["normalize_factors"] = tuple(options["normalize_factors"])
    options["aggregation"] = settings.get("aggregation_method", "sum")
    return config_from(EDMConfig, {**options, "elements": ELEMENTS[dataset]}, origin)


def published_weights(path: Path) -> dict[str, Tensor]:
    """The state dict, with each tensor once.

    Raises:
        UserError: as `read_torch`, or it holds something else than tensors.
    """
    if not path.is_file():
        raise UserError(f"no {path}: an EDM folder holds {ARGUMENTS} and {WEIGHTS}")
    held = read_torch(path)
    require_tensors(held, str(path))
    once = {name: tensor for name, tensor in held.items() if not name.startswith(REPEATED)}
    return once or {name.removeprefix(REPEATED): tensor for name, tensor in held.items()}


def _sizes(path: Path | None, dataset: str) -> dict[int, int]:
    """The size histogram in a file, or QM9's."""
    if path is None:
        if ELEMENTS[dataset] is not QM9:
            raise UserError(
                f"a model of {dataset} needs the sizes of its molecules: give --sizes, JSON {{atoms: count}}"
            )
        shipped = read_stored("edm_qm9_small")
        return sizes_of(shipped.card, shipped.origin)
    try:
        return sizes_of({"sizes": json.loads(path.read_text())}, str(path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): give JSON, {{atoms: count}}") from error
