"""Validation: between iterations a batch is drawn and scored that nothing is trained on, the same prompts each time.

Prompts and noise are keyed by a seed of their own, so that a validation neither sees nor moves the randomness of the
training, and two validations differ by the weights alone: a reward that remembers what the run drew scores them by what
it remembered when the run began. It samples with the averaged weights, the ones that loading a checkpoint gives. The
numbers are named `val/...`:

| name | what |
|---|---|
| `val/reward` | mean of the weighed sum of raw values (`raw_reward`) where the reward gives one, else of `reward` |
| `val/<component>` | mean of what a component computed, before it is normalised; of another channel, of its scores |
| `val/<diagnostic>` | mean of what else the reward says of a sample, such as `e_above_hull` |
| `val/failed` | samples without a full score |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch

from atomrl.config import Config
from atomrl.config.outputs import VALIDATED
from atomrl.core.iteration import staged
from atomrl.core.prompts import PromptPlan
from atomrl.core.protocols import Collective, DiffusionPolicy, Remembering, Reward
from atomrl.core.random import key
from atomrl.core.records import RewardTable, Stats
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.scoring import Scorer
from atomrl.core.stages import Stage
from atomrl.training.score_log import summarise

RAW = "raw_"


@dataclass(frozen=True)
class Validation:
    """What is drawn and how it is scored.

    Attributes:
        every: iterations from one to the next.
        plan: of its prompts; those of iteration 0 are drawn each time.
        rollout: how it samples.
        stages: between its scores and its numbers.
        exploded_above: see `UpdateConfig`.
    """

    every: int
    plan: PromptPlan
    rollout: RolloutConfig
    stages: tuple[Stage, ...]
    exploded_above: float

    def follows(self, iteration: int) -> bool:
        """Whether there is one after this iteration, counted from 0."""
        return (iteration + 1) % self.every == 0

    def numbers(
        self, policy: DiffusionPolicy, scorer: Scorer, collective: Collective, device: torch.device
    ) -> dict[str, float]:
        """Draw and score, with the policy as it is; the same numbers on all processes."""
        prompts = self.plan.share(self.plan.prompts(0), collective.rank, collective.size).to(device)
        scorer.begin()
        trajectory = rollout(policy, prompts, self.rollout, scorer.start)
        scores = scorer.finish(trajectory, collective)
        table, _ = staged(trajectory, scores, self.stages, self.exploded_above, collective)
        return named(replace(table, fields={}, seconds={}, scored_structures={}).gather(collective))


class FirstMemory:
    """What a reward remembers when its run begins; nothing, of one that does not remember.

    Args:
        reward: before the run has drawn anything.
    """

    def __init__(self, reward: Reward) -> None:
        self._reward = reward if isinstance(reward, Remembering) else None
        self._memory = None if self._reward is None else deepcopy(self._reward.memory())

    @contextmanager
    def recalled(self) -> Iterator[None]:
        """Let the reward remember that, and afterwards what it did before."""
        if self._reward is None or self._memory is None:
            yield
            return
        kept = deepcopy(self._reward.memory())
        self._reward.recall(deepcopy(self._memory))
        try:
            yield
        finally:
            self._reward.recall(kept)


def build_validation(
    config: Config, training: PromptPlan, rollout: RolloutConfig, stages: tuple[Stage, ...]
) -> Validation | None:
    """The validation that a configuration asks for, if it does.

    Args:
        config: of the run.
        training: its prompts: of the same sizes, and as many in a group.
        rollout: how it samples.
        stages: between scores and the rule for failures, which is no part of it.
    """
    asked = config.validation
    if not asked.every:
        return None
    plan = replace(training, groups=asked.groups or training.groups, seed=key("validation", asked.seed))
    walk = replace(rollout, time_step=asked.time_step or rollout.time_step, train_steps=0, estimate_at=(), mean_at=())
    return Validation(asked.every, plan, walk, stages, config.train.exploded_above)


def named(table: RewardTable) -> dict[str, float]:
    """A validation's numbers out of the scores of all its samples; NaN where no sample has one."""
    summary = summarise(table)
    whole = summary[f"{RAW}reward"] if f"{RAW}reward" in table.diagnostics else summary["reward"]
    channels = {name: summary[f"{name}_reward_mean"] for name in table.channels}
    further = {name: summary[name] for name in table.diagnostics if not name.startswith(RAW)}
    computed = {name.removeprefix(RAW): summary[name] for name in table.diagnostics if name.startswith(RAW)}
    found: Stats = {**further, **channels, **computed, "reward": whole, "failed": summary["failed"]}
    return {f"{VALIDATED}{name}": value for name, value in found.items()}
