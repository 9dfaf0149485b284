"""A step of the learning benchmark: choosing from the base, by the reward and the prompts of a training.

One line for each iteration of the training, which draws that iteration's sizes and as many samples of each as the
largest N: the mean of a measure over the best of every N, and over what N steered particles end as (`core.steering`). A
file that is not whole yet is continued.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atomrl.config import load_config
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.stages import score_alone, total_reward
from atomrl.core.steering import SteeringConfig, steer
from atomrl.evaluation.best_of import best_of_n
from atomrl.training.rl_module import RLModule, build_module
from atomrl.util.device import use_threads
from atomrl.util.files import write_whole

STEERED = "steered "
"""What a key of a line begins with, before the number of particles."""


def main(words: Sequence[str]) -> None:
    """`python -m benchmarks.best_of_draws FILE ITERATIONS MEASURE N,N,... N,N,... CONFIG [key=value ...]`.

    The first numbers are of best-of-N, the second ones of particles.
    """
    path, iterations, measure = Path(words[0]), int(words[1]), words[2]
    counts, particles = ([int(n) for n in text.split(",") if n] for text in words[3:5])
    lines = path.read_text().splitlines() if path.is_file() else []
    config = load_config(words[5], words[6:])
    use_threads(config.threads)
    module, _ = build_module(config)
    with closing(module):
        for iteration in range(len(lines), iterations):
            found: dict[str, float] = {str(n): value for n, value in best(module, iteration, measure, counts).items()}
            found |= {f"{STEERED}{n}": steered(module, iteration, measure, n) for n in particles}
            lines.append(json.dumps({"iteration": iteration, **found}))
            write_whole(path, "\n".join(lines) + "\n")


def best(module: RLModule, iteration: int, measure: str, counts: Sequence[int]) -> dict[int, float]:
    """Mean of a measure over the best of each N samples of an iteration, by N; its groups are multiples of each N.

    A measure that compares samples, as uniqueness does, compares those that are kept.
    """
    generated, _ = module.rollout(module.plan.prompts(iteration))
    table, _ = module.compute_rewards(generated)
    rewards, values = (measured(table, name).cpu().numpy() for name in ("reward", measure))
    structures = generated.trajectory.structures
    prompts = Prompts.concatenate([bucket.prompts for bucket in generated.trajectory.buckets])
    found = {}
    for n in counts:
        rows = torch.from_numpy(best_of_n(rewards, n))
        if n == 1 or module.scorer.reward.scope == "per_sample":  # all samples, or each by itself: measured above
            found[n] = float(np.nanmean(values[rows.numpy()]))
        else:
            found[n] = _measured(module, structures[rows], prompts[rows], measure)
    return found


def steered(module: RLModule, iteration: int, measure: str, particles: int) -> float:
    """Mean of a measure over one sample for each group of an iteration: the best of so many steered particles."""
    prompts = module.plan.prompts(iteration)
    each = module.plan.samples_per_group
    places = torch.arange(len(prompts)) % each
    chosen = prompts[places < particles]
    reward, rollout = module.scorer.reward, module.iteration.rollout
    config = SteeringConfig(rollout.time_step, max(particles, rollout.micro_batch_size))
    found = steer(module.policy, chosen, config, partial(total_reward, reward, module.stages))
    return _measured(module, found.structures, prompts[places == 0], measure)


def _measured(module: RLModule, structures: Structures, prompts: Prompts, measure: str) -> float:
    """Mean of a measure over samples that are scored together; a stage may be what computes it, as crystals' mSUN."""
    table = score_alone(module.scorer.reward, module.stages, structures, prompts)
    return float(measured(table, measure).nanmean())


def measured(table: RewardTable, measure: str) -> Tensor:
    """A measure of each sample, (B,) float64; NaN if no sample has a score, since then nothing else is computed."""
    if measure not in table.diagnostics and None not in table.reasons:
        return torch.full((len(table),), torch.nan, dtype=torch.float64)
    return table.diagnostics[measure].double()


def cost(name: str, time_step: int) -> tuple[int, int]:
    """Scorings, and calls of the network in the walk, for each sample that is kept, by the key of a line."""
    n = int(name.removeprefix(STEERED))
    places = len(SteeringConfig(time_step).at()) if name.startswith(STEERED) else 0
    return n * (1 + places), n * time_step


if __name__ == "__main__":
    main(sys.argv[1:])
