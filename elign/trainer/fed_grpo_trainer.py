"""Published name of `atomrl.training.rl_module.RLModule`."""

from atomrl.training.rl_module import RLModule as FedGrpoTrainer

__all__ = ["FedGrpoTrainer"]
