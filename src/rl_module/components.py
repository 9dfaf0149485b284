"""Published name of `atomrl.rewards.components`."""

from atomrl.rewards.components import (
    CompositionDiversityReward,
    CreativityReward,
    CustomReward,
    EnergyReward,
    PredictorReward,
    RewardComponent,
    StructureDiversityReward,
)

__all__ = [
    "CompositionDiversityReward",
    "CreativityReward",
    "CustomReward",
    "EnergyReward",
    "PredictorReward",
    "RewardComponent",
    "StructureDiversityReward",
]
