"""One rank of a data-parallel run of three updates: output, objective, policy, which samples teach.

Rank 0 saves the parameters, and the gradient of each update.
"""

import sys

import torch
import torch.distributed as dist
from leave import leave
from staged import after_failures
from test_update import LIMIT, OBJECTIVES, STEPS, failing_score, plan, policy, reduction

from atomrl.core.collective import current
from atomrl.core.iteration import sample_for
from atomrl.core.objectives.grpo import GRPO, GRPOConfig
from atomrl.core.rollout import RolloutConfig
from atomrl.core.stages import withhold
from atomrl.core.update import UpdateConfig, update, usable

# Groups are dealt out in turn, so that of two ranks the second has the odd ones.
TEACHING = {
    "all": lambda group_ids, sample_ids: sample_ids >= 0,
    "unequal": lambda group_ids, sample_ids: (group_ids % 2 == 0) | (sample_ids % 3 > 0),
    "one rank": lambda group_ids, sample_ids: group_ids % 2 == 0,
}
"""Which samples a filter lets teach: all, more of those of one rank, those of one rank alone."""

GRPO_OBJECTIVE = GRPO(GRPOConfig(clip_ratio=0.2))  # normalises over the batch


def main() -> None:
    dist.init_process_group("gloo")
    objective = {**OBJECTIVES, "grpo": GRPO_OBJECTIVE}[sys.argv[2]]
    model = policy(kind=sys.argv[3])
    reduced = reduction(model)
    optimizer = torch.optim.SGD(model.current.parameters(), lr=0.01)
    saved: dict[str, torch.Tensor] = {}
    for iteration in range(3):
        prompts = plan().share(plan().prompts(iteration), dist.get_rank(), dist.get_world_size())
        trajectory = sample_for(objective, model, prompts, RolloutConfig(STEPS, 12, log_prob_reduction=reduced))
        active = usable(trajectory, LIMIT)
        over_batch = sys.argv[2] == "grpo"
        scores = after_failures(failing_score(trajectory), trajectory.group_ids, "worst", over_batch, active, current())
        teach = TEACHING[sys.argv[4]](trajectory.group_ids, trajectory.sample_ids)
        scores = withhold(scores, ~teach, "duplicate")
        advantages = objective.advantages(scores, trajectory.group_ids, active, current())
        config = UpdateConfig(exploded_above=LIMIT)
        update(model, trajectory, advantages, objective, optimizer, config, current())
        saved |= {f"gradient {iteration}.{name}": p.grad.clone() for name, p in model.current.named_parameters()}
    if dist.get_rank() == 0:
        saved |= {f"parameter.{name}": value.detach() for name, value in model.current.named_parameters()}
        torch.save(saved, sys.argv[1])
    leave()


if __name__ == "__main__":
    main()
