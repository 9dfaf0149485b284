"""The configuration of a run on molecules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from atomrl.config.sections import Config, LogSection, RewardSection, TrainSection
from atomrl.rewards.force_energy_config import ForceEnergyConfig
from atomrl.util.options import Count, Seconds, Weight, contradiction


class MoleculeReward(ForceEnergyConfig, RewardSection):
    """What is rewarded: the options of `ForceEnergyConfig`, and where scores come from."""

    type: Literal["xtb", "dummy"] = "xtb"
    """`xtb` (GFN2) or `dummy` (smoke tests; its numbers mean nothing)."""
    timeout: Seconds = 10.0
    """Seconds that one molecule may take."""
    max_iterations: Count = 100
    """Bound on SCF iterations."""

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

    def why_absent(self, channel: str) -> str:
        """Why this reward does not give a channel, and what to do."""
        if self.type == "dummy":
            return f"reward.type=dummy has no channel {channel}: choose reward.type=xtb"
        if channel == "energy":
            return "reward.use_energy=false: there is no energy channel; set reward.use_energy=true"
        return "reward.stability_channel=force: stability is no channel of its own; set reward.stability_channel=own"


class MoleculeTrain(TrainSection):
    """Objective and optimizer, with the reward's channels."""

    force_adv_weight: Weight = 1.0
    """Weight of the advantages of the channel `force`."""
    energy_adv_weight: Weight = 0.1
    """Of `energy`; the published 0.1 counts only where reward.use_energy makes energies a channel."""
    stability_adv_weight: Weight = 0.0
    """Of `stability`, where reward.stability_channel=own makes it a channel."""

    @property
    def channel_weights(self) -> Mapping[str, float]:
        """Weight of each channel's advantages, whether the reward gives it or not."""
        return {
            "force": self.force_adv_weight,
            "energy": self.energy_adv_weight,
            "stability": self.stability_adv_weight,
        }


class MoleculeLog(LogSection):
    """Where metrics go beside metrics.jsonl."""

    rdkit: bool = True
    """Check every iteration's samples with RDKit (validity, uniqueness)."""


class MoleculeConfig(Config):
    """A run on molecules; all keys of `Config`, and those of its sections here."""

    domain: Literal["molecules"] = "molecules"
    reward: MoleculeReward = MoleculeReward()
    train: MoleculeTrain = MoleculeTrain()
    log: MoleculeLog = MoleculeLog()

    @property
    def channel_weights(self) -> Mapping[str, float]:
        """Weight of the advantages of each channel that the reward gives."""
        weights = self.train.channel_weights
        return {channel: weights[channel] for channel in self.reward.channels}

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        """Refuse weights of channels that there are not, and channels none of which has a weight."""
        reward, published = self.reward, MoleculeTrain().channel_weights
        for channel, weight in self.train.channel_weights.items():
            if weight and channel not in reward.channels and weight != published[channel]:
                raise contradiction(
                    f"train.{channel}_adv_weight={weight}, but {reward.why_absent(channel)}, or set the weight to 0"
                )
        if not any(self.channel_weights.values()):
            keys = ", ".join(f"train.{channel}_adv_weight" for channel in reward.channels)
            raise contradiction(f"{keys}: the weight of every channel is 0, and nothing would be learned; raise one")
        return self
