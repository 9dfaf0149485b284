"""Small conditional crystal models for tests: random weights, eight known crystals."""

from pathlib import Path

import numpy as np
import torch
from crystal_models import randomized, small_vae
from small_crystal_set import packed

from atomrl.checkpoints.crystal import CrystalBackbone, save_crystal_backbone
from atomrl.networks.conditions import Condition, ConditionModule, counts_by_element
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.policies.crystal_conditioning import KnownCrystals

GAP = Condition(name="band_gap", kind="value", mean=1.0, std=0.5)
FORMULA = Condition(name="composition", kind="composition")
SYSTEM = Condition(name="system", kind="chemical_system")


def known(conditions: tuple[Condition, ...] = (GAP, FORMULA, SYSTEM)) -> KnownCrystals:
    """Of the eight crystals; crystal k has a band gap of k eV."""
    crystals = packed()
    gaps = {each.name: np.arange(float(len(crystals))) for each in conditions if not each.of_elements}
    of_elements = any(each.of_elements for each in conditions)
    return KnownCrystals.of(crystals.sizes, gaps, counts_by_element(crystals.padded().numbers) if of_elements else None)


def backbone(conditions: tuple[Condition, ...] = (GAP, FORMULA, SYSTEM)) -> CrystalBackbone:
    """Random weights, large enough for the conditions to matter."""
    torch.manual_seed(0)
    denoiser = randomized(DiT(DiTConfig(hidden=16, depth=1, heads=2)), std=0.2)
    module = ConditionModule(conditions, 16) if conditions else None
    about = known(conditions) if conditions else None
    return CrystalBackbone(small_vae(), denoiser, 1.0, {2: 6, 5: 2}, module, known=about)


def write(folder: Path, conditions: tuple[Condition, ...] = (GAP, FORMULA, SYSTEM)) -> Path:
    """The folder of such a model."""
    save_crystal_backbone(folder, backbone(conditions), {"frame": "first_atom"})
    return folder
