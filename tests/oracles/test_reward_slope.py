"""On the shipped weights the reward of a short run rises: the one test in which everything real learns together."""

import numpy as np
import pytest
import torch
from scipy.stats import linregress, ttest_1samp

from atomrl.config import load_config
from atomrl.experiment import build_module
from atomrl.update import update

ITERATIONS = 9
# The demo's experiment, but for counts that let one core finish in two minutes: a short walk (20 steps), molecules of
# equal size.
SHORT = [
    "model.time_step=20",
    "dataloader.sample_group_size=4",
    "dataloader.each_prompt_sample=32",
    "dataloader.micro_batch_size=128",
    "dataloader.nodes_dist_focus_min=12",
    "dataloader.nodes_dist_focus_max=12",
    "dataloader.nodes_dist_focus_multiplier=1e12",
    "train.train_steps=null",
    "train.learning_rate=5e-5",
    "log.rdkit=false",
]
FRESH = 1_000_000
"""An iteration that no training reaches: its prompts and noise are those of the samples that are looked at."""


@pytest.mark.timeout(600)
def test_the_reward_rises() -> None:
    """The same 128 held-out draws are scored after each iteration, so that only the policy differs between them.

    Each draw has a slope of its own over the iterations; the draws are independent, so a t test over their slopes says
    whether the mean slope is positive.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = load_config("demo", SHORT)
    module, _ = build_module(config)
    try:
        optimizer = torch.optim.AdamW(module.policy.trainable().parameters(), lr=config.train.learning_rate)
        rewards = [held_out_rewards(module)]
        for iteration in range(ITERATIONS):
            batch, trajectory = module.rollout(module.plan.prompts(iteration))
            _, advantages = module.compute_rewards(batch)
            update(module.policy, trajectory, advantages, module.objective, optimizer, config.train)
            rewards.append(held_out_rewards(module))
    finally:
        module.close()
        torch.set_num_threads(threads)
    by_draw = np.stack(rewards, axis=1)  # (draws, iterations + 1)
    scored = by_draw[np.isfinite(by_draw).all(1)]
    assert len(scored) > 100
    slopes = [linregress(np.arange(ITERATIONS + 1), draw).slope for draw in scored]
    assert ttest_1samp(slopes, 0, alternative="greater").pvalue < 0.01, scored.mean(0).tolist()


def held_out_rewards(module) -> np.ndarray:
    """Reward of each held-out draw under the policy of now, in the order of their ids."""
    batch, trajectory = module.rollout(module.plan.prompts(FRESH))
    table, _ = module.compute_rewards(batch)
    return table.diagnostics["reward"][trajectory.sample_ids.argsort()].numpy()
