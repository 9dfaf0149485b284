"""The configuration of a run on crystals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from atomrl.config.sections import Config, EvaluationSection, ModelSection, RewardSection


@dataclass(frozen=True)
class CrystalModel(ModelSection):
    """The backbone and how it samples.

    Attributes:
        sampler: `ddpm` or `ddim`.
        eta: of DDIM; 1 is stochastic.
        guidance_scale: of conditional backbones; 1 is none.
    """

    backbone: str = "crystal_small"
    time_step: int = 50
    sampler: str = "ddpm"
    eta: float = 1.0
    guidance_scale: float = 2.0


@dataclass(frozen=True)
class CrystalReward(RewardSection):
    """What is rewarded: the sum of components, and what they compare with.

    Attributes:
        type: `reinforce` (the sum of `components`) or `dummy` (smoke tests; its numbers mean nothing).
        components: each `{_target_: class, key: value, ...}`; `_target_` is a class of `atomrl.rewards.components`, its
            published name (`src.rl_module.components...`), or your own: a dotted path or `path/to/file.py:name`, of a
            class or of a function f(structures) -> array.
        reference_dataset: what novelty and diversity compare with: `prototypes`, or a folder with train.csv
            and val.csv, of which the first counts.
        hull: what energies are compared with: a file that `Hull.save` wrote; null takes the reference set's own.
        timeout: seconds that a matcher may think about one pair.
        batch_size: crystals that the force field sees at once.
    """

    type: str = "reinforce"
    components: list[Any] = field(default_factory=list)
    reference_dataset: str = "prototypes"
    hull: str | None = None
    timeout: float = 10.0
    batch_size: int = 16


@dataclass(frozen=True)
class CrystalEvaluation(EvaluationSection):
    """The before/after table that a run ends with.

    Attributes:
        relaxed: samples per side that are judged once more after a relaxation; 0: none.
        second_judge: another force field with its own hull, which training never saw: `sevennet` (an extra) or null.
    """

    relaxed: int = 0
    second_judge: str | None = None


@dataclass(frozen=True)
class CrystalConfig(Config):
    """A run on crystals; all keys of `Config`, and those of its sections here."""

    domain: str = "crystals"
    best_checkpoint_metric: str = "raw_reward"
    model: CrystalModel = field(default_factory=CrystalModel)
    reward: CrystalReward = field(default_factory=CrystalReward)
    evaluation: CrystalEvaluation = field(default_factory=CrystalEvaluation)
