"""Crystals to measure on, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone
from atomrl.chemistry.crystals import check_cells
from atomrl.chemistry.hull import Hull
from atomrl.data.prototypes.load import ASSETS, HULL_FILE, PrototypeSet, load_prototypes
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig
from atomrl.prompts import PromptPlan, SizeDistribution
from atomrl.records import Structures
from atomrl.rollout import RolloutConfig, rollout

STEPS = 50
"""Transitions of the walk."""

STRAIN, LARGEST_SHIFT = 0.03, 0.5
"""Of the copies: standard deviation of the strain, and of the shifts at most, Å. Some are still matched, some not."""

STAND_IN = CrystalVAEConfig(width=128, heads=4, feedforward=512, layers=4)
"""A VAE of the size that ships, with random weights: good for timing only."""


@dataclass(frozen=True)
class CrystalSource:
    """A finished crystal set, its hull, and the model that is sampled.

    Attributes:
        crystals: the set; its training split is the reference.
        hull: of the set.
        backbone: sampled; without one, disturbed copies of the set stand in for samples.
    """

    crystals: PrototypeSet
    hull: Hull
    backbone: CrystalBackbone | None = None

    @classmethod
    def load(cls, folder: Path | None = None, backbone: str | None = None) -> CrystalSource:
        """From disk.

        Args:
            folder: of the set; the shipped one if None.
            backbone: name or folder; copies of the set if None.

        Raises:
            UserError: one of them cannot be read.
        """
        folder = folder or ASSETS
        model = None if backbone is None else load_crystal_backbone(backbone)
        return cls(load_prototypes(folder), Hull.load(folder / HULL_FILE), model)

    @property
    def kind(self) -> str:
        """What the samples are, for the table."""
        return "copies" if self.backbone is None else "samples"

    @property
    def references(self) -> Structures:
        """What novelty and diversity compare with."""
        return self.crystals.structures(self.crystals.rows("train"))

    @property
    def vae(self) -> CrystalVAE:
        """The backbone's, or one with random weights."""
        if self.backbone is not None:
            return self.backbone.vae.eval()
        torch.manual_seed(0)
        return CrystalVAE(STAND_IN).eval()

    def samples(self, count: int, seed: int) -> Structures:
        """What is measured on, as it comes: some cells may not be sound."""
        if self.backbone is None:
            return disturbed(self.crystals, count, seed)
        plan = PromptPlan(SizeDistribution(self.backbone.sizes), count, 1, seed)
        return rollout(self.backbone.policy(), plan.prompts(0), RolloutConfig(STEPS, train_steps=0)).structures


def disturbed(crystals: PrototypeSet, count: int, seed: int) -> Structures:
    """Copies of crystals drawn with replacement: strained, and their atoms shifted, each copy by another amount."""
    draw = torch.Generator().manual_seed(seed)
    copies = crystals.structures(torch.randint(len(crystals), (count,), generator=draw))
    assert copies.cell is not None
    strain = torch.eye(3) + STRAIN * torch.randn(count, 3, 3, generator=draw)
    size = LARGEST_SHIFT * torch.rand(count, 1, 1, generator=draw)
    shifts = size * torch.randn(copies.positions.shape, generator=draw) * copies.mask[..., None]
    return Structures(copies.numbers, copies.positions @ strain + shifts, copies.mask, copies.cell @ strain)


def sound(structures: Structures) -> Structures:
    """Those that may be matched and evaluated."""
    return structures[torch.tensor([reason is None for reason in check_cells(structures)])]
