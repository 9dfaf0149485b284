"""One rank of two, first the only one whose samples all exploded, then one of two; rank 0 saves what it got.

The former also with a step for each group, so that this rank has a part in none of the steps that are taken.
"""

import sys
from dataclasses import replace

import torch
import torch.distributed as dist
from leave import leave
from small_updates import LIMIT, OBJECTIVE, STEPS, plan, policy, score

from atomrl.core.collective import current
from atomrl.core.records import Stats
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.update import UpdateConfig, update, usable
from atomrl.util.errors import UserError


def step(limit: float, samples_per_step: int | None = None) -> Stats:
    """An update of the initial policy by this rank's share of the samples."""
    model = policy()
    prompts = plan().share(plan().prompts(0), dist.get_rank(), dist.get_world_size())
    trajectory = rollout(model, prompts, RolloutConfig(STEPS, 12))
    advantages = OBJECTIVE.advantages(score(trajectory), trajectory.group_ids, usable(trajectory, limit), current())
    optimizer, config = torch.optim.SGD(model.current.parameters(), lr=0.01), UpdateConfig(exploded_above=limit)
    config = replace(config, samples_per_step=samples_per_step)
    return update(model, trajectory, advantages, OBJECTIVE, optimizer, config, current())


def main() -> None:
    dist.init_process_group("gloo")
    limit = 0.0 if dist.get_rank() == 0 else LIMIT
    stats, by_group = step(limit), step(limit, samples_per_step=3)
    try:
        step(0.0)
        stopped = False
    except UserError:
        stopped = True
    everyone = current().gather(torch.tensor([stopped]))
    if dist.get_rank() == 0:
        masked = [stats["masked_samples"], by_group["masked_samples"]]
        names = [sorted(stats), sorted(by_group)]
        torch.save({"masked_samples": masked, "names": names, "stopped": everyone.tolist()}, sys.argv[1])
    leave()


if __name__ == "__main__":
    main()
