"""Published name of `atomrl.core.reward_schedule`."""

from atomrl.core.reward_schedule import RewardScheduler

__all__ = ["RewardScheduler"]
