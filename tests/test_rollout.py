"""What a rollout draws for each sample, and what for each group."""

import pytest
import torch

from atomrl.config import load_config
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.rollout import rollout
from atomrl.policies.toy import SubspaceGaussian
from atomrl.training.experiment import build_sampling

GROUPS, EACH = 3, 4


@pytest.mark.parametrize("shared", [False, True])
def test_a_group_can_start_from_the_same_noise(shared: bool) -> None:
    """Only from the same: its samples part at the first step."""
    words = [f"model.share_initial_noise={str(shared).lower()}", "model.time_step=5", "train.train_steps=null"]
    sampling = build_sampling(
        load_config("demo_fed_grpo", [*words, "train.train_min_time=0", "train.train_max_time=1"])
    )
    plan = PromptPlan(SizeDistribution({5: 1}), GROUPS, EACH, seed=1)
    trajectory = rollout(SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])), plan.prompts(0), sampling)
    (bucket,) = trajectory.buckets
    start, following = (bucket.latents[place].unflatten(0, (GROUPS, EACH)) for place in (0, 1))
    same = (start == start[:, :1]).flatten(2).all(2)
    assert same[:, 1:].all() if shared else not same[:, 1:].any()
    assert not (following == following[:, :1]).flatten(2).all(2)[:, 1:].any()
    assert len(start[:, 0].flatten(1).unique(dim=0)) == GROUPS
