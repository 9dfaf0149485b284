"""One rank of a data-parallel run of three updates; rank 0 saves the parameters."""

import sys
from dataclasses import dataclass

import torch
import torch.distributed as dist
from test_update import LIMIT, OBJECTIVE, STEPS, plan, policy, score

from atomrl.rollout import RolloutConfig, rollout
from atomrl.update import UpdateConfig, update, usable


@dataclass(frozen=True)
class Gloo:
    """Sums over processes."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)


def main() -> None:
    dist.init_process_group("gloo")
    model = policy()
    optimizer = torch.optim.SGD(model.current.parameters(), lr=0.01)
    for iteration in range(3):
        prompts = plan().share(plan().prompts(iteration), dist.get_rank(), dist.get_world_size())
        trajectory = rollout(model, prompts, RolloutConfig(STEPS, 12))
        advantages = OBJECTIVE.advantages(score(trajectory), trajectory.group_ids, usable(trajectory, LIMIT))
        update(model, trajectory, advantages, OBJECTIVE, optimizer, UpdateConfig(exploded_above=LIMIT), Gloo())
    if dist.get_rank() == 0:
        torch.save({name: value.detach() for name, value in model.current.named_parameters()}, sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
