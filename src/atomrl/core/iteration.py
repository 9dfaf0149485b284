"""One iteration of reinforcement learning, top to bottom: sample, score, compare, update."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from torch import Tensor

from atomrl.core.advantages import Advantages
from atomrl.core.collective import Alone
from atomrl.core.guard import Steps
from atomrl.core.objectives.base import Objective
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.records import Bucket, Prompts, RewardTable, Stats, Trajectory
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.scoring import Scorer
from atomrl.core.stages import SampleContext, Stage, apply_stages
from atomrl.core.update import UpdateConfig, update, usable


@dataclass(frozen=True)
class IterationConfig:
    """How to sample, and how to update."""

    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)


@dataclass(frozen=True)
class Iteration:
    """What one iteration did.

    Attributes:
        trajectory: the rollout; rows of all below follow it.
        table: the scores after all stages.
        advantages: what the steps were reinforced with.
        stats: of the update, for the log.
        seconds: wall time of `rollout` (with scoring) and `update`.
    """

    trajectory: Trajectory
    table: RewardTable
    advantages: Advantages
    stats: Stats
    seconds: Stats


def iterate(
    policy: DiffusionPolicy,
    prompts: Prompts,
    scorer: Scorer,
    stages: Sequence[Stage],
    objective: Objective,
    optimizer: Steps,
    config: IterationConfig,
    collective: Collective | None = None,
) -> Iteration:
    """Sample, score and update once.

    Args:
        policy: samples, then moves in place.
        prompts: what this process samples, on the policy's device.
        scorer: around the reward.
        stages: between scores and advantages, in order.
        objective: scores to advantages, rollout to losses.
        optimizer: over the policy's trainable parameters.
        config: how to sample and update.
        collective: the processes of the run; alone if None.

    Raises:
        ExplodedError, NonFiniteLossError: as `update`.
    """
    collective = collective or Alone()
    started = time.monotonic()
    trajectory = sample_and_score(policy, prompts, scorer, objective, config.rollout)
    table, advantages = compare(
        trajectory, scorer.finish(trajectory, collective), stages, objective, config.update, collective
    )
    scored = time.monotonic()
    stats = update(policy, trajectory, advantages, objective, optimizer, config.update, collective)
    seconds = {"rollout": scored - started, "update": time.monotonic() - scored}
    return Iteration(trajectory, table, advantages, stats, seconds)


def sample_and_score(
    policy: DiffusionPolicy, prompts: Prompts, scorer: Scorer, objective: Objective, config: RolloutConfig
) -> Trajectory:
    """A rollout whose buckets are scored while the next ones are sampled; `scorer.finish` waits for the scores."""
    scorer.begin()
    return sample_for(objective, policy, prompts, config, scorer.start)


def sample_for(
    objective: Objective,
    policy: DiffusionPolicy,
    prompts: Prompts,
    config: RolloutConfig,
    on_bucket: Callable[[Bucket], None] | None = None,
) -> Trajectory:
    """A rollout as an objective needs it.

    Where it keeps an old policy, that one moves first, then samples. Where it needs no walk, none is kept.
    """
    decay = objective.old_decay(prompts.iteration)
    if decay is not None:
        policy.follow(decay)
    if not objective.needs_walk:
        config = replace(config, train_steps=0)
    with nullcontext() if decay is None else policy.old():
        return rollout(policy, prompts, config, on_bucket)


def compare(
    trajectory: Trajectory,
    scores: RewardTable,
    stages: Sequence[Stage],
    objective: Objective,
    config: UpdateConfig,
    collective: Collective,
) -> tuple[RewardTable, Advantages]:
    """The scores after all stages, and the advantages that the objective makes of them."""
    table, active = staged(trajectory, scores, stages, config.exploded_above, collective)
    advantages = objective.advantages(table, trajectory.group_ids, active, collective)
    return table, replace(advantages, fields=table.fields)


def staged(
    trajectory: Trajectory,
    scores: RewardTable,
    stages: Sequence[Stage],
    exploded_above: float,
    collective: Collective,
) -> tuple[RewardTable, Tensor]:
    """The scores after all stages, and which samples are usable, (B,) bool; see `usable`."""
    active = usable(trajectory, exploded_above)
    samples = SampleContext(
        trajectory.prompts, trajectory.structures, active, collective, estimates=trajectory.estimates
    )
    return apply_stages(stages, scores.to(active.device), samples), active
