"""A reference set and its features as files: what `atomrl data reference` writes beside a hull."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from atomrl.data.packed_crystals import PackedCrystals
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

REFERENCE_FILE, FEATURES_FILE = "reference.safetensors", "features.safetensors"

ARRAYS: dict[str, type[np.generic]] = {
    "numbers": np.int64,
    "frac_coords": np.float32,
    "lattices": np.float32,
    "offsets": np.int64,
}


def save_reference(path: Path, crystals: PackedCrystals) -> None:
    """Write known crystals.

    Raises:
        UserError: the file cannot be written.
    """
    write_whole(
        path, save({name: np.ascontiguousarray(getattr(crystals, name), kind) for name, kind in ARRAYS.items()})
    )


def load_reference(path: Path) -> PackedCrystals:
    """Read what `save_reference` wrote.

    Raises:
        UserError: it is no such file, or holds no crystal.
    """
    try:
        arrays = load_file(path)
        crystals = PackedCrystals(arrays["numbers"], arrays["frac_coords"], arrays["lattices"], arrays["offsets"])
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(
            f"cannot read the reference set {path}: {error}; make it again: atomrl data reference"
        ) from error
    if not len(crystals):
        raise UserError(f"{path} holds no crystal: make it again: atomrl data reference")
    return crystals


def save_features(path: Path, features: Mapping[str, Tensor], network: nn.Module, crystals: PackedCrystals) -> None:
    """Write features (M, F) of M known crystals by an encoder, with what they depend on.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {name: values.contiguous() for name, values in features.items()}
    write_whole(path, save_tensors(tensors, metadata=_key(network, crystals)))


def load_features(path: Path, network: nn.Module, crystals: PackedCrystals) -> dict[str, Tensor] | None:
    """The features of these crystals by this encoder; None if the file is not there, or is of others.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() != _key(network, crystals):
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise UserError(f"cannot read the features {path}: {error}; delete the file") from error


def _key(network: nn.Module, crystals: PackedCrystals) -> dict[str, str]:
    """What features depend on."""
    weights = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {"network": weights.hexdigest(), "crystals": crystals.fingerprint}
