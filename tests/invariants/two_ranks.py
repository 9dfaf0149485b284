"""One rank of data-parallel runs of three iterations.

Its words are the output, then one for each run: `objective,kind,teaching,spread`. `spread` says how many samples an
optimizer step takes, of all ranks, or `all`. Rank 0 saves of each run the parameters, and the gradient of each step.
"""

import sys
from typing import NamedTuple

import torch
import torch.distributed as dist
from leave import leave
from small_updates import LIMIT, OBJECTIVES, STEPS, Recorder, failing_score, plan, policy, reduction
from staged import after_failures

from atomrl.core.alignment import ForceAlignment, forces_at
from atomrl.core.collective import current
from atomrl.core.iteration import compare, sample_and_score, sample_for
from atomrl.core.objectives.base import Objective
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.grpo import GRPO, GRPOConfig
from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.records import Advantages, Prompts, RewardTable, Structures, Trajectory
from atomrl.core.rollout import RolloutConfig
from atomrl.core.scoring import Scorer
from atomrl.core.shaping import ShapedRewards
from atomrl.core.stages import FailedScores, SampleContext, withhold
from atomrl.core.update import UpdateConfig, update, usable
from atomrl.rewards.dummy import DummyReward

# Groups are dealt out in turn, so that of two ranks the second has the odd ones.
TEACHING = {
    "all": lambda group_ids, sample_ids: sample_ids >= 0,
    "unequal": lambda group_ids, sample_ids: (group_ids % 2 == 0) | (sample_ids % 3 > 0),
    "one rank": lambda group_ids, sample_ids: group_ids % 2 == 0,
}
"""Which samples a filter lets teach: all, more of those of one rank, those of one rank alone."""

GRPO_OBJECTIVE = GRPO(GRPOConfig(clip_ratio=0.2))  # normalises over the batch
PREFIX, SCORED, ALIGNED = 6, (8, 13, 17, 19), (17, 19)
ALIGNED_OBJECTIVE = FedGRPO(FedGRPOConfig(alignment=ForceAlignment(2.0)))
"""Aligns steps with the forces of `Inward`, at these places of the walk."""


class Inward(DummyReward):
    """Every atom is pulled to the origin."""

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        table = super().score(structures, prompts)
        return RewardTable(table.channels, table.reasons, fields={"forces": -structures.positions.double()})


class Case(NamedTuple):
    """A run."""

    objective: str
    kind: str
    teaching: str
    spread: str


class Teaching:
    """A stage, which lets some samples teach."""

    def __init__(self, which: str) -> None:
        self.which = which

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        teach = TEACHING[self.which](samples.prompts.group_ids, samples.prompts.sample_ids)
        return withhold(table, ~teach, "duplicate")


def shaped(
    model: DiffusionPolicy, prompts: Prompts, config: UpdateConfig, teaching: str
) -> tuple[Trajectory, Advantages]:
    """A rollout with a shared prefix, and what its transitions are worth."""
    sampling = RolloutConfig(STEPS, 12, True, PREFIX, estimate_at=SCORED, mean_at=ALIGNED)
    scorer, stages = Scorer(Inward(), forces_at=ALIGNED), [Teaching(teaching), FailedScores(), ShapedRewards(STEPS)]
    trajectory = sample_and_score(model, prompts, scorer, ALIGNED_OBJECTIVE, sampling)
    scores = scorer.finish(trajectory, current())
    _, advantages = compare(trajectory, scores, stages, ALIGNED_OBJECTIVE, config, current())
    assert forces_at(ALIGNED[0]) in advantages.fields
    assert advantages.by_step is not None
    scorer.close()
    return trajectory, advantages


def unshaped(
    model: DiffusionPolicy, prompts: Prompts, objective: Objective, case: Case
) -> tuple[Trajectory, Advantages]:
    """A rollout, and what its samples are worth, of which some failed."""
    trajectory = sample_for(objective, model, prompts, RolloutConfig(STEPS, 12, log_prob_reduction=reduction(model)))
    active = usable(trajectory, LIMIT)
    over_batch = case.objective == "grpo"
    scores = after_failures(failing_score(trajectory), trajectory.group_ids, "worst", over_batch, active, current())
    teach = TEACHING[case.teaching](trajectory.group_ids, trajectory.sample_ids)
    scores = withhold(scores, ~teach, "duplicate")
    return trajectory, objective.advantages(scores, trajectory.group_ids, active, current())


class Recorded(Recorder):
    """Keeps the gradient of each step, which plain SGD takes."""

    def step(self) -> None:
        super().step()
        with torch.no_grad():
            for parameter in self.parameters.values():
                parameter.sub_(0.01 * parameter.grad)


def run(case: Case) -> dict[str, torch.Tensor]:
    """Gradients of the steps, and the parameters after them."""
    objective = {**OBJECTIVES, "grpo": GRPO_OBJECTIVE, "aligned": ALIGNED_OBJECTIVE}[case.objective]
    model = policy(kind=case.kind)
    optimizer = Recorded(model)
    samples_per_step = None if case.spread == "all" else int(case.spread)
    config = UpdateConfig(exploded_above=LIMIT, samples_per_step=samples_per_step)
    for iteration in range(3):
        prompts = plan().share(plan().prompts(iteration), dist.get_rank(), dist.get_world_size())
        if case.objective == "aligned":
            trajectory, advantages = shaped(model, prompts, config, case.teaching)
        else:
            trajectory, advantages = unshaped(model, prompts, objective, case)
        update(model, trajectory, advantages, objective, optimizer, config, current())
    gradients = enumerate(optimizer.steps)
    saved = {f"gradient {number}.{name}": values for number, step in gradients for name, values in step.items()}
    return saved | {f"parameter.{name}": value.detach() for name, value in model.current.named_parameters()}


def main() -> None:
    dist.init_process_group("gloo")
    output, *words = sys.argv[1:]
    saved = {word: run(Case(*word.split(","))) for word in words}
    if dist.get_rank() == 0:
        torch.save(saved, output)
    leave()


if __name__ == "__main__":
    main()
