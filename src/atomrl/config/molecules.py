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
        workers: scoring processes; null takes one per core that this process may use.
        timeout: seconds that one molecule may take.
        max_iterations: bound on SCF iterations.
    """

    type: str = "xtb"
    workers: int | None = None
    timeout: float = 10.0
    max_iterations: int = 100
    energy_atom_refs: Any = "xtb"

    @property
    def stability_home(self) -> str:
        """Name of the channel that the stability and valence terms are in."""
        return "stability" if self.stability_channel == "own" else "force"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that this reward gives."""
        energy = ("energy",) if self.use_energy or self.type == "dummy" else ()
        stability = ("stability",) if self.stability_channel == "own" and self.type != "dummy" else ()
        return ("force", *energy, *stability)


@dataclass(frozen=True)
class MoleculeTrain(TrainSection):
    """Objective and optimizer, with the reward's channels.

    Attributes:
        force_adv_weight, energy_adv_weight, stability_adv_weight: weights of the channels' advantages. The published
            0.1 of energies counts only where reward.use_energy makes them a channel.
    """

    force_adv_weight: float = 1.0
    energy_adv_weight: float = 0.1
    stability_adv_weight: float = 0.0

    @property
    def channel_weights(self) -> Mapping[str, float]:
        """Weight of each channel's advantages, whether the reward gives it or not."""
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

    @property
    def channel_weights(self) -> Mapping[str, float]:
        """Weight of the advantages of each channel that the reward gives."""
        weights = self.train.channel_weights
        return {channel: weights[channel] for channel in self.reward.channels}
