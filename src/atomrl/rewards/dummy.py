"""A reward without meaning, for smoke tests: instant, deterministic, needs no force field."""

from __future__ import annotations

import torch

from atomrl.core.records import Prompts, RewardTable, Structures

SCALE = 2.0
"""Å, a length of the order of a small molecule's radius."""


class DummyReward:
    """Prefers compact samples; implements `protocols.Reward`. Its numbers say nothing about chemistry.

    Channels, with m the mean squared distance of the atoms from their center in units of `SCALE`:
    `force` = -m, `energy` = -(m - 1)^2. A sample with no atoms or with a coordinate that is not finite is NaN with
    reason `no_atoms` or `nonfinite`.
    """

    scope: str = "per_sample"

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """Both channels, (B,) float64, on the CPU, and their sum as the diagnostic `raw_reward`."""
        mask = structures.mask.cpu()
        atoms = mask.sum(1)
        positions = torch.where(mask[..., None], structures.positions.detach().cpu().double(), 0.0)
        finite = positions.isfinite().all(2).all(1)
        center = positions.sum(1, keepdim=True) / atoms[:, None, None]
        offsets = torch.where(mask[..., None], positions - center, 0.0) / SCALE
        mean_square = torch.where(finite, offsets.square().sum((1, 2)) / atoms, torch.nan)
        reasons = tuple(
            "no_atoms" if count == 0 else None if sound else "nonfinite"
            for count, sound in zip(atoms.tolist(), finite.tolist(), strict=True)
        )
        channels = {"force": -mean_square, "energy": -(mean_square - 1).square()}
        return RewardTable(channels, reasons, diagnostics={"raw_reward": channels["force"] + channels["energy"]})

    def close(self) -> None:
        """Nothing to give back."""
