"""A reward of your own: atomic density, as a class and as a function.

    atomrl check-reward examples/custom_reward.py:AtomicDensity
    atomrl check-reward examples/custom_reward.py:atomic_density

In a configuration:

    components:
      - _target_: atomrl.rewards.components.CustomReward
        source: examples/custom_reward.py:AtomicDensity
        normalize_fn: norm
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from atomrl.rewards.components import RewardComponent


class AtomicDensity(RewardComponent):
    """Atoms per volume, 1/Å³: larger is denser. With a target: minus the distance from it."""

    def __init__(self, target: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.target = target

    def compute(self, gen_structures: list[Any], **kwargs: Any) -> torch.Tensor:
        """One number per pymatgen structure."""
        density = torch.tensor([len(crystal) / crystal.volume for crystal in gen_structures])
        return density if self.target is None else -(density - self.target).abs()


def atomic_density(structures: list[Any]) -> np.ndarray:
    """The same as a plain function."""
    return np.array([len(crystal) / crystal.volume for crystal in structures])


if __name__ == "__main__":
    from atomrl.rewards.check import example_crystals, report
    from atomrl.rewards.components import CustomReward
    from atomrl.rewards.reinforce import ReinforceReward

    dense = AtomicDensity(normalize_fn="norm")
    wanted = CustomReward(atomic_density, weight=0.5, normalize_fn="std")
    print("\n".join(report(ReinforceReward([dense, wanted]), *example_crystals()).lines()))
