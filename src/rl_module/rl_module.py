"""Published name of `atomrl.training.rl_module`."""

from atomrl.training.rl_module import RLModule

__all__ = ["RLModule"]
