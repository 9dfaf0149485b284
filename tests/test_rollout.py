"""What a rollout draws for each sample, and what for each group."""

import pytest
import torch

from atomrl.config import load_config
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.policies.toy import SubspaceGaussian
from atomrl.training.experiment import build_sampling
from atomrl.training.shaping import OnTheWay
from atomrl.util.errors import UserError

GROUPS, EACH = 3, 4
NO_GROUPS = ["train.group_reward_norm=false"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_group_can_start_from_the_same_noise(shared: bool) -> None:
    """Only from the same: its samples part at the first step."""
    words = [f"model.share_initial_noise={str(shared).lower()}", "model.time_step=5", "train.train_steps=null"]
    sampling = build_sampling(
        load_config("demo_fed_grpo", [*words, "train.train_min_time=0", "train.train_max_time=1"]), OnTheWay()
    )
    plan = PromptPlan(SizeDistribution({5: 1}), GROUPS, EACH, seed=1)
    trajectory = rollout(SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])), plan.prompts(0), sampling)
    (bucket,) = trajectory.buckets
    start, following = (bucket.latents[place].unflatten(0, (GROUPS, EACH)) for place in (0, 1))
    same = (start == start[:, :1]).flatten(2).all(2)
    assert same[:, 1:].all() if shared else not same[:, 1:].any()
    assert not (following == following[:, :1]).flatten(2).all(2)[:, 1:].any()
    assert len(start[:, 0].flatten(1).unique(dim=0)) == GROUPS


class Counting(SubspaceGaussian):
    """Notes how many samples each transition was asked about."""

    def __init__(self) -> None:
        super().__init__(torch.tensor([0.0, 0, 0, 0.3]))
        self.asked: dict[int, int] = {}

    def step(self, latents, mask, transition, prompts):
        assert len(latents) == len(mask) == len(prompts)
        self.asked[transition.index] = self.asked.get(transition.index, 0) + len(latents)
        return super().step(latents, mask, transition, prompts)


@pytest.mark.parametrize("suffix_only", [True, False])
def test_a_group_walks_the_prefix_once(suffix_only: bool) -> None:
    """Bit for bit the same up to the branch, different after it; two sizes, two buckets."""
    policy, prefix, steps = Counting(), 3, 8
    plan = PromptPlan(SizeDistribution({3: 1, 7: 1}), GROUPS, EACH, seed=5)
    config = RolloutConfig(
        steps, EACH, share_initial_noise=True, skip_prefix=prefix, return_suffix_only=suffix_only, estimate_at=(1, 5)
    )
    trajectory = rollout(policy, plan.prompts(0), config)
    assert trajectory.trained == tuple(range(prefix, steps))
    assert policy.asked == {index: GROUPS * (1 if index < prefix else EACH) for index in range(steps)}
    for bucket in trajectory.buckets:
        assert set(bucket.latents) == set(range(prefix if suffix_only else 0, steps + 1))
        assert set(bucket.log_probs) == set(range(prefix, steps))
        assert len(bucket.clean) == len(bucket.mask) == len(bucket.estimates[1]) == EACH
        for place, latents in bucket.latents.items():
            same = (latents == latents[:1]).flatten(1).all(1)
            assert same[1:].all() if place <= prefix else not same[1:].any()
        early, late = (bucket.estimates[place].positions for place in (1, 5))
        assert torch.equal(early, early[:1].expand_as(early))
        assert not torch.equal(late[0], late[1])


def test_a_shared_prefix_does_not_depend_on_the_cut() -> None:
    plan = PromptPlan(SizeDistribution({4: 1}), GROUPS, EACH, seed=5)
    whole, cut = (
        rollout(Counting(), plan.prompts(0), RolloutConfig(6, size, share_initial_noise=True, skip_prefix=2))
        for size in (GROUPS * EACH, EACH)
    )
    assert torch.allclose(whole.structures.positions, cut.structures.positions, atol=1e-6)


def test_the_same_prefix_is_forgotten_by_a_forward_objective() -> None:
    """It trains no transition; what is remembered of the behaviour lies behind the branch."""
    config = RolloutConfig(8, EACH, share_initial_noise=True, skip_prefix=5, train_steps=0)
    plan = PromptPlan(SizeDistribution({4: 1}), 1, EACH, seed=5)
    (bucket,) = rollout(Counting(), plan.prompts(0), config).buckets
    assert min(bucket.behaviour) >= 5
    assert all(len(step.mean) == EACH for step in bucket.behaviour.values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.skip_prefix=5"], "model.skip_prefix=5 leaves nothing to train of model.time_step=5"),
        (["model.skip_prefix=3", "model.share_initial_noise=false"], "set model.share_initial_noise=true"),
        (
            ["model.skip_prefix=3", "dataloader.each_prompt_sample=1", "train.objective=grpo", *NO_GROUPS],
            "nothing shares the prefix",
        ),
        (
            ["model.skip_prefix=3", "reward.shaping.enabled=true", "reward.shaping.scheduler.skip_prefix=2"],
            "reward.shaping.scheduler.skip_prefix=2 is below model.skip_prefix=3",
        ),
        (
            ["model.skip_prefix=3", "validation.every=1", "validation.time_step=3"],
            "validation.time_step=3 leaves nothing behind model.skip_prefix=3",
        ),
        (["model.skip_prefix=3", "train.train_steps=3"], "exceeds model.time_step=5 behind model.skip_prefix=3"),
    ],
)
def test_a_prefix_that_is_none_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("demo_fed_grpo", ["model.time_step=5", "model.share_initial_noise=true", *overrides])


def test_the_core_refuses_it_too() -> None:
    with pytest.raises(UserError, match="set share_initial_noise too"):
        RolloutConfig(5, skip_prefix=2)
    with pytest.raises(UserError, match="must lie between 0 and 4"):
        RolloutConfig(5, skip_prefix=5, share_initial_noise=True)
