"""One rank of a data-parallel run of three updates; rank 0 saves the parameters."""

import sys

import torch
import torch.distributed as dist
from test_update import LIMIT, OBJECTIVE, STEPS, plan, policy, score

from atomrl.collective import current
from atomrl.rollout import RolloutConfig, rollout
from atomrl.update import UpdateConfig, update, usable


def main() -> None:
    dist.init_process_group("gloo")
    model = policy()
    optimizer = torch.optim.SGD(model.current.parameters(), lr=0.01)
    for iteration in range(3):
        prompts = plan().share(plan().prompts(iteration), dist.get_rank(), dist.get_world_size())
        trajectory = rollout(model, prompts, RolloutConfig(STEPS, 12))
        advantages = OBJECTIVE.advantages(score(trajectory), trajectory.group_ids, usable(trajectory, LIMIT))
        update(model, trajectory, advantages, OBJECTIVE, optimizer, UpdateConfig(exploded_above=LIMIT), current())
    if dist.get_rank() == 0:
        torch.save({name: value.detach() for name, value in model.current.named_parameters()}, sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
