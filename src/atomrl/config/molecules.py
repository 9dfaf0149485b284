"""The configuration of a run on molecules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atomrl.config.sections import Config, LogSection, RewardSection, TrainSection
from atomrl.rewards.force_energy import ForceEnergyConfig


@dataclass(frozen=True)
class MoleculeReward(ForceEnergyConfig, RewardSection):
    """What is rewarded: the options of `ForceEnergyConfig`, and where scores come from.

    Attributes:
        type: `xtb` (GFN2) or `dummy` (smoke tests; its numbers mean nothing).
        workers: scoring processes; null takes one per core.
        timeout: seconds that one molecule may take.
        max_iterations: bound on SCF iterations.
    """

    type: str = "xtb"
    workers: int | None = None
    timeout: float = 10.0
    max_iterations: int = 100
    energy_atom_refs: Any = "xtb"


@dataclass(frozen=True)
class MoleculeTrain(TrainSection):
    """Objective and optimizer, with the reward's channels.

    Attributes:
        force_adv_weight, energy_adv_weight, stability_adv_weight: weights of the channels' advantages.
    """

    force_adv_weight: float = 1.0
    energy_adv_weight: float = 0.1
    stability_adv_weight: float = 0.0

    @property
    def channel_weights(self) -> Mapping[str, float]:
        """Weight of each reward channel's advantages."""
        return {
            "force": self.force_adv_weight,
            "energy": self.energy_adv_weight,
            "stability": self.stability_adv_weight,
        }


@dataclass(frozen=True)
class MoleculeLog(LogSection):
    """Where metrics go beside metrics.jsonl.

    Attributes:
        rdkit: check every iteration's samples with RDKit (validity, uniqueness).
    """

    rdkit: bool = True


@dataclass(frozen=True)
class MoleculeConfig(Config):
    """A run on molecules; all keys of `Config`, and those of its sections here."""

    reward: MoleculeReward = field(default_factory=MoleculeReward)
    train: MoleculeTrain = field(default_factory=MoleculeTrain)
    log: MoleculeLog = field(default_factory=MoleculeLog)
