"""A tiny untrained backbone on disk, for tests of the machinery around it."""

from pathlib import Path

import numpy as np
import torch

from atomrl.checkpoints.backbone import save_backbone
from atomrl.core.conditioning import Property, PropertyConditioning
from atomrl.networks.edm import EDMConfig, EDMNetwork

# Small runs of a few seconds: the machinery is the same at any size.
TINY = [
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=3",
    "dataloader.epoches=4",
    "model.time_step=10",
    "train.exploded_above=1e5",
    "train.learning_rate=1e-3",
    "train.max_behaviour_kl=null",
    "reward.type=dummy",
    "reward.shaping.enabled=false",
    "train.force_alignment_enabled=false",
    "reward.components=[]",
    "reward.use_energy=true",
    "train.energy_adv_weight=0.5",
    "train.stability_adv_weight=0",
    "evaluation.samples=0",
    "threads=1",
    "log.rdkit=false",
    "log.tensorboard=false",
    "best_checkpoint_metric=reward",
]


def write(folder: Path) -> Path:
    torch.manual_seed(0)
    network = EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=2))
    save_backbone(folder, network, {4: 2, 6: 1, 7: 1}, {})
    return folder


def write_conditional(folder: Path) -> Path:
    """The same, conditioned on `alpha`, whose values are about ten times the number of atoms."""
    torch.manual_seed(0)
    network = EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=2, context_features=1))
    save_backbone(folder, network, {4: 2, 6: 1, 7: 1}, {}, PropertyConditioning(("alpha",), {"alpha": alpha()}))
    return folder


def alpha() -> Property:
    """Values for 4, 6 and 7 atoms."""
    sizes = np.repeat([4, 6, 7], 100)
    return Property.of(sizes, 10.0 * sizes + np.linspace(-1, 1, 300), "Bohr^3")
