"""Published EDM weights, `args.pickle` and `generative_model_ema.npy`, read as a backbone of this package.

The settings are a pickled `argparse.Namespace`: a reader that knows this one class, and calls nothing, reads it. The
weights are a file of torch.save, read as tensors alone. Parameter names are the same here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from atomrl.checkpoints.folder import (
    CARD,
    config_from,
    read_card,
    read_sizes,
    require_tensors,
    sizes_entry,
    sizes_of,
)
from atomrl.checkpoints.shipped import located
from atomrl.checkpoints.torch_file import read_torch
from atomrl.networks.edm import EDMConfig
from atomrl.util.errors import UserError
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

LATER = {"normalization_factor": 1, "aggregation_method": "sum"}
"""Settings that older files lack, and what they were before they could be set; published code reads those files so."""

ONLY = {
    "model": "egnn_dynamics",
    "probabilistic_model": "diffusion",
    "diffusion_noise_schedule": "polynomial_2",
    "condition_time": True,
    "remove_h": False,
}
"""Settings that only one value suits here."""

REPEATED, OF_SEVERAL = "model.", "module."
"""Prefixes: under the one a published state dict may hold everything once more; the other one is before all names where
several processes trained it."""


NAMESPACE = {("argparse", "Namespace"): SimpleNamespace}
"""The one class that the settings may be of, and what stands in for it."""


def is_published(folder: Path) -> bool:
    """Whether a folder holds the settings of a published model, and no backbone of this package."""
    return (folder / ARGUMENTS).is_file() and not (folder / CARD).is_file()


def read_published(folder: Path, sizes: Path | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and weights of a published folder, as `folder.read_folder` gives those of a backbone.

    Args:
        folder: with args.pickle and generative_model_ema.npy.
        sizes: JSON, {atoms: count} of the training set; None: as published with QM9 and GEOM-Drugs.

    Raises:
        UserError: a file is missing or damaged, asks for code, describes another kind of model, or lacks a setting.
    """
    settings = read_arguments(folder / ARGUMENTS)
    config = published_config(settings, str(folder / ARGUMENTS))
    weights = published_weights(folder / WEIGHTS)
    histogram = _published_sizes(settings["dataset"]) if sizes is None else read_sizes(sizes)
    card = {"backbone": config.model_dump(), "sizes": sizes_entry(histogram), "origin": f"published as {folder.name}"}
    return {**card, "conditioning": list(settings["conditioning"])}, weights


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
    settings = {**LATER, **settings}
    missing = sorted({*RENAMED, *ONLY, "dataset", "conditioning"} - settings.keys())
    if missing:
        raise UserError(f"{origin} lacks {', '.join(missing)}: is it the args.pickle of an EDM training?")
    for name, value in ONLY.items():
        if settings[name] != value:
            raise UserError(f"{origin}: {name}={settings[name]!r}, and only {value!r} can be imported")
    dataset = settings["dataset"]
    if not isinstance(dataset, str) or dataset not in ELEMENTS:
        raise UserError(
            f"{origin}: dataset={dataset!r}: its elements are not known, only those of {', '.join(ELEMENTS)}"
        )
    names = settings["conditioning"]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{origin}: conditioning={names!r}: must be a list of the properties that the model takes")
    options = {ours: settings[name] for name, ours in RENAMED.items()}
    options["aggregation"] = settings["aggregation_method"]
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
    plain = {name.removeprefix(OF_SEVERAL): tensor for name, tensor in held.items()}
    once = {name: tensor for name, tensor in plain.items() if not name.startswith(REPEATED)}
    return once or {name.removeprefix(REPEATED): tensor for name, tensor in plain.items()}


def _published_sizes(dataset: str) -> dict[int, int]:
    """Atoms per molecule of QM9, as in the shipped backbone, or of GEOM-Drugs."""
    if dataset == "geom":
        return read_sizes(Path(str(resources.files("atomrl") / "assets" / "geom_drugs_sizes.json")))
    shipped = located("edm_qm9_small")
    return sizes_of(read_card(shipped), str(shipped))
