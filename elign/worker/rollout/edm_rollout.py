"""Published name of `atomrl.core.rollout.rollout`."""

from atomrl.core.rollout import rollout as EDMRollout

__all__ = ["EDMRollout"]
