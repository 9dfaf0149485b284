"""GRPO: the golden loss, advantages in groups and over batches, failures, and that it climbs."""

import json
import math
from pathlib import Path

import pytest
import torch
from staged import after_failures

from atomrl.core.normalize import normalize
from atomrl.core.objectives.base import Objective
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.grpo import GRPO, GRPOConfig
from atomrl.core.objectives.likelihood import StepTerms
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import GATED, RewardTable
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.update import UpdateConfig, update, usable
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from atomrl.util.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "crystal_rewards.json").read_text())["grpo_loss"]


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def everyone(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


def table(**channels: torch.Tensor) -> RewardTable:
    return RewardTable(channels, (None,) * len(next(iter(channels.values()))))


def grouped(samples: int, **options: object) -> GRPO:
    return GRPO(GRPOConfig(num_group_samples=samples, group_reward_norm=True, **options))


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_golden_loss(case: dict) -> None:
    objective = GRPO(
        GRPOConfig(clip_ratio=case["clip_ratio"], kl_weight=case["kl_weight"], entropy_weight=case["entropy_weight"])
    )
    advantages = tensor(GOLDEN["advantages"])
    losses = []
    for new, old in zip(GOLDEN["log_prob_new"], GOLDEN["log_prob_old"], strict=True):
        terms = StepTerms(tensor(new), tensor(old), advantages, everyone(len(new)), balance=0.3, divergence=None)
        losses.append(objective.step_loss(terms).loss.mean())
    found = torch.stack(losses)
    assert torch.allclose(found, tensor(case["per_step"]), atol=1e-6)
    assert float(found.mean()) == pytest.approx(case["mean"], abs=1e-6)


def test_gradient_of_the_penalties() -> None:
    new = tensor([0.3, -0.2]).requires_grad_()
    terms = StepTerms(new, tensor([0.1, 0.1]), tensor([0.0, 0.0]), everyone(2), balance=0.5, divergence=None)
    objective = GRPO(GRPOConfig(kl_weight=2.0, entropy_weight=0.1))
    objective.step_loss(terms).loss.sum().backward()
    assert torch.allclose(new.grad, 2.0 * (1 - torch.exp(tensor([-0.2, 0.3]))) + 0.1)


@pytest.mark.parametrize("weighting", ["published", "balanced"])
def test_divergence_from_the_initial_model_and_inactive_samples(weighting: str) -> None:
    scale = 0.5 if weighting == "balanced" else 1.0
    objective = GRPO(
        GRPOConfig(kl_weight=0.0, entropy_weight=0.0, kl_penalty_weight=3.0, clip_ratio=0.2, step_weighting=weighting)
    )
    assert objective.needs_reference
    terms = StepTerms(
        tensor([0.1, math.nan]),
        tensor([0.0, 0.0]),
        tensor([1.0, 1.0]),
        torch.tensor([True, False]),
        0.5,
        tensor([0.2, 9.0]),
    )
    expected = -math.exp(0.1 * scale) + 3.0 * 0.2 * scale**2
    assert objective.step_loss(terms).loss.tolist() == pytest.approx([expected, 0.0])


def test_balanced_scales_every_term_alike() -> None:
    plain = {"kl_weight": 1.0, "entropy_weight": 0.3, "clip_ratio": 0.1}
    new, old, advantages = tensor([0.4, -0.3]), tensor([0.1, 0.2]), tensor([1.0, -1.0])
    balanced = GRPO(GRPOConfig(**plain, step_weighting="balanced"))
    found = balanced.step_loss(StepTerms(new, old, advantages, everyone(2), 0.25, None)).loss
    published = (
        GRPO(GRPOConfig(**plain)).step_loss(StepTerms(new / 4, old / 4, advantages, everyone(2), 1.0, None)).loss
    )
    assert torch.allclose(found, published)


def test_advantages_in_groups() -> None:
    force, energy = tensor([1.0, 2.0, 5.0, 0.0]), tensor([0.5, 0.5, -1.0, 1.0])
    groups = torch.tensor([4, 4, 9, 9])
    found = grouped(2).advantages(table(force=force, energy=energy), groups, everyone(4))
    for rows in ([0, 1], [2, 3]):
        assert torch.allclose(found.total[rows], normalize((force + energy)[rows], "std"))
    weighted = grouped(2, channel_weights={"force": 2.0, "energy": 0.0}, normalize_fn="subtract_mean")
    found = weighted.advantages(table(force=force, energy=energy), groups, everyone(4))
    assert found.total.tolist() == [-1, 1, 5, -5]


def test_advantages_over_the_batch() -> None:
    rewards = tensor([1.0, 2.0, 5.0, 0.0])
    groups = torch.arange(4)
    found = GRPO(GRPOConfig()).advantages(table(reward=rewards), groups, everyone(4))
    assert torch.allclose(found.total, normalize(rewards, "std"))
    raw = GRPO(GRPOConfig(normalize_fn=None)).advantages(table(reward=rewards), groups, everyone(4))
    assert torch.equal(raw.total, rewards)


def test_failed_scores() -> None:
    rewards = RewardTable(
        {"a": tensor([1.0, 2.0, math.nan, math.nan]), "b": tensor([3.0, 1.0, 0.0, 0.0])}, (None, None, "scf", GATED)
    )
    groups = torch.zeros(4, dtype=torch.int64)
    objective = grouped(4, normalize_fn="subtract_mean")
    worst = objective.advantages(after_failures(rewards, groups), groups, everyone(4))
    sums = tensor([4.0, 3.0, 1.0])  # the failed one gets a = 1, the worst of its group; the gated one takes no part
    assert torch.allclose(worst.total, torch.cat([sums - sums.mean(), tensor([0.0])]))
    masked = objective.advantages(after_failures(rewards, groups, "mask"), groups, everyone(4))
    assert masked.total.tolist() == [0.5, -0.5, 0, 0]


def test_unusable_samples_do_not_move_their_group() -> None:
    active = torch.tensor([True, True, True, False])
    groups = torch.zeros(4, dtype=torch.int64)
    found = grouped(4).advantages(table(reward=tensor([1.0, 2.0, 3.0, 1e9])), groups, active)
    assert torch.allclose(found.total, torch.cat([normalize(tensor([1.0, 2.0, 3.0]), "std"), tensor([0.0])]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group_reward_norm": True}, "num_group_samples=1"),
        ({"num_group_samples": 0}, "num_group_samples"),
        ({"clip_ratio": 0.0}, "clip_ratio"),
        ({"kl_weight": -1.0}, "kl_weight"),
        ({"entropy_weight": math.nan}, "entropy_weight"),
        ({"step_weighting": "even"}, "step_weighting"),
        ({"normalize_fn": "z"}, "normalize_fn"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        GRPOConfig(**options)


def test_a_weight_for_an_absent_channel_is_refused() -> None:
    objective = GRPO(GRPOConfig(channel_weights={"energy": 1.0}))
    with pytest.raises(UserError, match="energy"):
        objective.advantages(table(force=tensor([1.0, 2.0])), torch.arange(2), everyone(2))


@pytest.mark.parametrize("policy_type", [SubspaceGaussian, LearnedStdGaussian])
@pytest.mark.parametrize(
    "objective",
    [
        GRPO(
            GRPOConfig(
                num_group_samples=16, group_reward_norm=True, clip_ratio=0.2, kl_weight=0.01, step_weighting="balanced"
            )
        ),
        FedGRPO(FedGRPOConfig(channel_weights={"last": 1.0}, step_weighting="balanced")),
    ],
    ids=["grpo", "fed_grpo"],
)
def test_climbs_on_both_kinds_of_policy(policy_type: type, objective: Objective) -> None:
    policy = policy_type(torch.zeros(4, dtype=torch.float64))
    plan = PromptPlan(SizeDistribution({3: 1, 4: 1}), groups=4, samples_per_group=16, seed=0)
    optimizer = torch.optim.Adam(policy.trainable().parameters(), lr=0.06)
    settings = UpdateConfig(epoch_per_rollout=2, max_grad_norm=math.inf)
    rewards = []
    for iteration in range(10):
        trajectory = rollout(policy, plan.prompts(iteration), RolloutConfig(6, log_prob_reduction="mean"))
        ends = [(bucket.latents[max(bucket.latents)][..., 3], bucket.mask) for bucket in trajectory.buckets]
        last = torch.cat([(latents * mask).sum(1) / mask.sum(1) for latents, mask in ends])
        rewards.append(float(-(last - 1).square().mean()))
        advantages = objective.advantages(
            table(last=-(last - 1).square()), trajectory.group_ids, usable(trajectory, settings.exploded_above)
        )
        stats = update(policy, trajectory, advantages, objective, optimizer, settings)
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2, rewards
    assert math.isfinite(stats["loss"])
