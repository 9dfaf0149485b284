"""Crystals to measure on, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone
from atomrl.chemistry.hull import Hull
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Structures
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.data.prototype_set import ASSETS, HULL_FILE, PrototypeSet, load_prototypes
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.structures.crystals import check_cells

BACKBONE = "crystal_small"

STEPS = 50
"""Transitions of the walk."""


@dataclass(frozen=True)
class CrystalSource:
    """A finished crystal set, its hull, and the model that is sampled.

    Attributes:
        crystals: the set; its training split is the reference.
        hull: of the set.
        backbone: sampled.
    """

    crystals: PrototypeSet
    hull: Hull
    backbone: CrystalBackbone

    @classmethod
    def load(cls, folder: Path | None = None, backbone: str = BACKBONE) -> CrystalSource:
        """From disk.

        Args:
            folder: of the set; the shipped one if None.
            backbone: name or folder.

        Raises:
            UserError: one of them cannot be read.
        """
        folder = folder or ASSETS
        return cls(load_prototypes(folder), Hull.load(folder / HULL_FILE), load_crystal_backbone(backbone))

    @property
    def references(self) -> Structures:
        """What novelty and diversity compare with."""
        return self.crystals.structures(self.crystals.rows("train"))

    @property
    def vae(self) -> CrystalVAE:
        """The backbone's."""
        return self.backbone.vae.eval()

    def samples(self, count: int, seed: int) -> Structures:
        """What is measured on, as it comes: some cells may not be sound."""
        plan = PromptPlan(SizeDistribution(self.backbone.sizes), count, 1, seed)
        return rollout(self.backbone.policy(), plan.prompts(0), RolloutConfig(STEPS, train_steps=0)).structures


def sound(structures: Structures) -> Structures:
    """Those that may be matched and evaluated."""
    return structures[torch.tensor([reason is None for reason in check_cells(structures)])]
