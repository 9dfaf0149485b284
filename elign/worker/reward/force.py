"""Published name of `atomrl.rewards.force_energy.ForceEnergyReward`, whose force field is an argument."""

from atomrl.rewards.force_energy import ForceEnergyReward as UMAForceReward

__all__ = ["UMAForceReward"]
