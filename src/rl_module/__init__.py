"""Published names of the reinforcement learning of crystals; everything is in `atomrl`."""

from atomrl.training.rl_module import RLModule

__all__ = ["RLModule"]
