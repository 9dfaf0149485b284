"""Networks in folders as EDM's weights are published."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import golden
import torch

from atomrl.networks.edm import EDMNetwork

SETTINGS: dict[str, Any] = {
    "model": "egnn_dynamics",
    "probabilistic_model": "diffusion",
    "diffusion_noise_schedule": "polynomial_2",
    "condition_time": True,
    "remove_h": False,
    "attention": True,
    "tanh": True,
    "norm_constant": 1,
    "diffusion_steps": 1000,
    "diffusion_noise_precision": 1e-5,
    "exp_name": "something else that is in there",
    "lr": 1e-4,
}
DATASETS = {"edm_qm9": "qm9", "edm_geom": "geom", "edm_alpha": "qm9_second_half", "edm_sin_mean": "qm9"}


def published(
    folder: Path, case: golden.GoldenEDM, name: str, protocol: int = 4, repeated: bool = False, **other: Any
) -> Path:
    """A folder as it is published, of a golden network."""
    dataset = other.pop("dataset", DATASETS[name])
    return publish(folder, case.network, dataset, protocol, repeated, **other)


def publish(
    folder: Path, network: EDMNetwork, dataset: str, protocol: int = 4, repeated: bool = False, **other: Any
) -> Path:
    """A folder as it is published, of any network of that data set's elements."""
    config = network.config
    settings = {
        **SETTINGS,
        "dataset": dataset,
        "nf": config.hidden,
        "n_layers": config.layers,
        "inv_sublayers": config.inv_sublayers,
        "sin_embedding": config.sin_embedding,
        "include_charges": config.include_charges,
        "context_node_nf": config.context_features,
        "conditioning": ["alpha"] if config.context_features else [],
        "normalize_factors": list(config.normalize_factors),
        "normalization_factor": int(config.normalization_factor),
        **({} if config.aggregation == "sum" else {"aggregation_method": config.aggregation}),
        **other,
    }
    folder.mkdir()
    kept = {key: value for key, value in settings.items() if value is not ...}
    (folder / "args.pickle").write_bytes(pickle.dumps(argparse.Namespace(**kept), protocol=protocol))
    state = network.state_dict()
    both = {**state, **{f"model.{key}": value for key, value in state.items()}}
    torch.save(both if repeated else state, folder / "generative_model_ema.npy")
    return folder
