"""On the shipped weights DiffusionNFT learns the better samples: the small twin of `test_reward_slope`."""

import numpy as np
import torch
from scipy.stats import norm, spearmanr

from atomrl.config import load_config
from atomrl.core.update import Lesson, update, usable
from atomrl.training.experiment import update_config
from atomrl.training.rl_module import build_module

# The demo, but for a reward that costs nothing and counts that let one core finish in seconds: a short walk, molecules
# of equal size.
SMALL = [
    "reward.components=[]",
    "reward.type=dummy",
    "train.stability_adv_weight=0",
    "train.nft.times=4",
    "train.num_inner_batch=4",
    "model.time_step=12",
    "dataloader.sample_group_size=4",
    "dataloader.each_prompt_sample=12",
    "dataloader.nodes_dist_focus_min=10",
    "dataloader.nodes_dist_focus_max=10",
    "dataloader.nodes_dist_focus_multiplier=1e12",
    "log.rdkit=false",
]


def test_an_update_denoises_the_better_samples_of_a_group_better() -> None:
    """After it the error falls the more, the larger a sample's advantage is.

    Were the advantages dealt out at random, the rank correlation of a group of n would have the mean 0 and the variance
    1 / (n - 1). Few samples are enough, since these and their noises are those of the update: it says that the sign is
    right and that each sample gets its own advantage, not that fresh samples are better.
    """
    config = load_config("demo", SMALL)
    module, _ = build_module(config)
    try:
        batch, trajectory = module.rollout(module.plan.prompts(0))
        _, advantages = module.compute_rewards(batch)
        updating = update_config(config.train, config.dataloader.micro_batch_size)
        optimizer = torch.optim.AdamW(module.policy.trainable().parameters(), lr=config.train.learning_rate)
        update(module.policy, trajectory, advantages, module.objective, optimizer, updating)
        lesson = Lesson.of(trajectory, advantages, updating, module.collective)
        with torch.no_grad():
            gains = torch.cat([gained(module, part, trajectory) for part in lesson.parts])
    finally:
        module.close()
    found = []
    for group in trajectory.group_ids.unique():
        rows = usable(trajectory, updating.exploded_above) & (trajectory.group_ids == group)
        found.append(spearmanr(advantages.total[rows], gains[rows]).statistic * np.sqrt(int(rows.sum()) - 1))
    assert len(found) == 4
    assert norm.sf(np.sum(found) / np.sqrt(len(found))) < 0.01, found


def gained(module, samples, trajectory) -> torch.Tensor:
    """By how much the squared error of the predicted noise fell since the old policy, at the draws of the update."""
    asked, draws = module.objective.predictions, module.objective.terms(trajectory, 0)
    errors = [
        [one.mean((noise - one.target).square()) for noise in (one.old, one.current)]
        for one in (asked(module.policy, samples, draw) for draw in draws)
    ]
    return torch.stack([old - now for old, now in errors]).mean(0)
