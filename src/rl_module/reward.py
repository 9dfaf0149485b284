"""Published name of `atomrl.rewards.reinforce`."""

from atomrl.rewards.reinforce import ReinforceReward

__all__ = ["ReinforceReward"]
