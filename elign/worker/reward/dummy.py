"""Published name of `atomrl.rewards.dummy`."""

from atomrl.rewards.dummy import DummyReward

__all__ = ["DummyReward"]
