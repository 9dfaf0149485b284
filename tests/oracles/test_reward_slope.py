"""On the shipped weights the reward of a short run rises: the one test in which everything real learns together."""

import numpy as np
import pytest
import torch
from scipy.stats import linregress, norm, spearmanr, ttest_1samp
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from atomrl.config import load_config
from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.update import update, usable
from atomrl.training.experiment import update_config
from atomrl.training.rl_module import build_module

ITERATIONS = 9
# The demo by the policy gradient, but for counts that let one core finish in two minutes: a short walk (20 steps),
# molecules of equal size.
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


STEP = 1e-3
"""Length of the step along earlier gradients: the log-ratios that it makes are small, and far above rounding."""


@pytest.mark.timeout(600)
def test_the_reward_rises() -> None:
    """The same 128 held-out draws are scored after each iteration, so that only the policy differs between them.

    Each draw has a slope of its own over the iterations; the draws are independent, so a t test over their slopes says
    whether the mean slope is positive. It cannot say why: weights that walk at random climb, too, if they are lucky,
    and all draws share that luck. Hence the second test, over the groups of the training's own samples: a step along
    the gradients of earlier iterations must make the better samples of a group likelier than the worse ones. Were its
    advantages dealt out at random, the rank correlation of a group of n would have the mean 0 and the variance
    1 / (n - 1), whatever way the weights have walked.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = load_config("demo_fed_grpo", SHORT)
    module, _ = build_module(config)
    try:
        parameters = [p for p in module.policy.trainable().parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=config.train.learning_rate)
        updating = update_config(config.train, config.dataloader.micro_batch_size)
        rewards, foreseen, gradient = [held_out_rewards(module)], [], torch.zeros(())
        for iteration in range(ITERATIONS):
            batch, trajectory = module.rollout(module.plan.prompts(iteration))
            _, advantages = module.compute_rewards(batch)
            if iteration:
                likelier = log_ratio_after_a_step(module, trajectory, parameters, gradient)
                foreseen += rank_correlations(module, trajectory, advantages.total, likelier)
            update(module.policy, trajectory, advantages, module.objective, optimizer, updating)
            gradient = gradient + torch.cat([p.grad.flatten() for p in parameters])  # each was clipped
            rewards.append(held_out_rewards(module))
    finally:
        module.close()
        torch.set_num_threads(threads)
    by_draw = np.stack(rewards, axis=1)  # (draws, iterations + 1)
    scored = by_draw[np.isfinite(by_draw).all(1)]
    assert len(scored) > 100
    slopes = [linregress(np.arange(ITERATIONS + 1), draw).slope for draw in scored]
    assert ttest_1samp(slopes, 0, alternative="greater").pvalue < 0.01, scored.mean(0).tolist()
    assert len(foreseen) == 4 * (ITERATIONS - 1)
    assert norm.sf(np.sum(foreseen) / np.sqrt(len(foreseen))) < 0.01, foreseen


def held_out_rewards(module) -> np.ndarray:
    """Reward of each held-out draw under the policy of now, in the order of their ids."""
    batch, trajectory = module.rollout(module.plan.prompts(FRESH))
    table, _ = module.compute_rewards(batch)
    return table.diagnostics["reward"][trajectory.sample_ids.argsort()].numpy()


def log_ratio_after_a_step(module, trajectory, parameters, gradient: torch.Tensor) -> torch.Tensor:
    """Log-ratio of each sample, balanced and summed over the trained transitions, for a step against a gradient."""
    (bucket,) = trajectory.buckets  # molecules of equal size
    found = torch.zeros(len(trajectory))
    with torch.no_grad():
        here = parameters_to_vector(parameters)
        vector_to_parameters(here - STEP * gradient / gradient.norm(), parameters)
        for index in trajectory.trained:
            transition = trajectory.walk[index]
            step = module.policy.step(bucket.latents[index], bucket.mask, transition, bucket.prompts)
            log_prob = gaussian_log_prob(bucket.latents[index + 1], step.mean, step.std, bucket.mask, "sum")
            found += transition.balance * (log_prob - bucket.log_probs[index])
        vector_to_parameters(here, parameters)
    return found


def rank_correlations(module, trajectory, advantages: torch.Tensor, likelier: torch.Tensor) -> list[float]:
    """Spearman's correlation of advantages and log-ratios in each group, in units of its spread by chance."""
    active = usable(trajectory, module.config.exploded_above)
    groups = [active & (trajectory.group_ids == group) for group in trajectory.group_ids.unique()]
    return [spearmanr(advantages[rows], likelier[rows]).statistic * np.sqrt(int(rows.sum()) - 1) for rows in groups]
