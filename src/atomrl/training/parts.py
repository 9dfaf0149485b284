"""The parts that a training is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atomrl.config import TrainSection
from atomrl.core.iteration import IterationConfig
from atomrl.core.objectives.base import Objective
from atomrl.core.prompts import PromptPlan
from atomrl.core.protocols import Collective, DiffusionPolicy, Monitor, Reward
from atomrl.core.stages import Stage
from atomrl.training.validation import Validation


@dataclass(frozen=True)
class Parts:
    """All that `RLModule` needs; `experiment.build_parts` makes it of a configuration.

    Attributes:
        policy: a torch module, so that its weights are saved; moves in place.
        plan: prompts of each iteration.
        reward: scores the samples.
        objective: scores to advantages, rollout to losses.
        iteration: how to sample and update.
        optimization: optimizer, its schedule and the averaged weights.
        total_steps: iterations of the schedule.
        stages: between scores and advantages, in order.
        monitor: measures samples for the log, or None.
        validation: what is drawn between iterations that nothing is trained on, or None.
        card: what a checkpoint says about the backbone, so that it can be loaded alone.
        places_at_once, forces_at: see `Scorer`.
        collective: the processes of the run; None: those of torch's default group, if there is one.
    """

    policy: DiffusionPolicy
    plan: PromptPlan
    reward: Reward
    objective: Objective
    iteration: IterationConfig
    optimization: TrainSection
    total_steps: int
    stages: tuple[Stage, ...] = ()
    monitor: Monitor | None = None
    validation: Validation | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    places_at_once: int = 32
    forces_at: tuple[int, ...] = ()
    collective: Collective | None = None
