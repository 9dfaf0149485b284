"""One rank of a data-parallel run of three updates: output, objective, policy; rank 0 saves the parameters."""

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
from atomrl.core.update import UpdateConfig, update, usable

GRPO_OBJECTIVE = GRPO(GRPOConfig(clip_ratio=0.2))  # normalises over the batch


def main() -> None:
    dist.init_process_group("gloo")
    objective = {**OBJECTIVES, "grpo": GRPO_OBJECTIVE}[sys.argv[2]]
    model = policy(kind=sys.argv[3])
    reduced = reduction(model)
    optimizer = torch.optim.SGD(model.current.parameters(), lr=0.01)
    for iteration in range(3):
        prompts = plan().share(plan().prompts(iteration), dist.get_rank(), dist.get_world_size())
        trajectory = sample_for(objective, model, prompts, RolloutConfig(STEPS, 12, log_prob_reduction=reduced))
        active = usable(trajectory, LIMIT)
        over_batch = sys.argv[2] == "grpo"
        scores = after_failures(failing_score(trajectory), trajectory.group_ids, "worst", over_batch, active, current())
        advantages = objective.advantages(scores, trajectory.group_ids, active, current())
        config = UpdateConfig(exploded_above=LIMIT)
        update(model, trajectory, advantages, objective, optimizer, config, current())
    if dist.get_rank() == 0:
        torch.save({name: value.detach() for name, value in model.current.named_parameters()}, sys.argv[1])
    leave()


if __name__ == "__main__":
    main()
