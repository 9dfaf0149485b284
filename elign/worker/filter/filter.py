"""Published name of `atomrl.rewards.filter`."""

from atomrl.rewards.filter import Filter

__all__ = ["Filter"]
