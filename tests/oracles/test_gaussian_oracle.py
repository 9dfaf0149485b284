"""Oracles: with the exact score of a Gaussian everything about a rollout and its gradient is known in closed form."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from atomrl.core.advantages import Advantages
from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.objectives.base import Samples, StepLoss, Term
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.records import RewardTable, Trajectory
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.update import UpdateConfig, update
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian

MEAN = [0.0, 0.0, 0.0, 0.8, -0.4]
VARIANCE = 0.25
POLICIES = {"subspace": SubspaceGaussian, "learned_std": LearnedStdGaussian}
FEATURE = 3  # outside the positions, so that the subspace leaves it alone
TARGET = 2.0


@dataclass(frozen=True)
class Walk:
    """The exact distribution of one feature of z_0, by unrolling z_s = a z_t + b m + std noise.

    slope: dE[z_0]/dm. variance: of z_0.
    """

    slope: float
    start: float
    variance: float
    noise_variance: float


def unroll(policy: SubspaceGaussian, steps: int) -> Walk:
    carry, slope, noise = 1.0, 0.0, 0.0
    for transition in policy.transitions(steps):
        kernel = policy._kernel(transition.s, transition.t)
        gain = kernel.sigma_t / (kernel.alpha_t**2 * VARIANCE + kernel.sigma_t**2)
        a, b = kernel.signal - kernel.noise * gain, kernel.noise * gain * kernel.alpha_t
        std = kernel.std if transition.trainable else 0.0
        carry, slope, noise = a * carry, a * slope + b, a * a * noise + std**2
    return Walk(slope, carry, carry**2 + noise, noise)


def sampled(policy: SubspaceGaussian, steps: int, samples: int, seed: int, atoms: int = 1) -> Trajectory:
    plan = PromptPlan(SizeDistribution({atoms: 1}), groups=1, samples_per_group=samples, seed=seed)
    return rollout(policy, plan.prompts(0), RolloutConfig(steps, micro_batch_size=samples))


def final(trajectory: Trajectory) -> torch.Tensor:
    """z_0 of a rollout whose last transition is trainable, or the mean that the last step returned."""
    bucket = trajectory.buckets[0]
    return bucket.latents[max(bucket.latents)]


@pytest.mark.parametrize("name", POLICIES)
def test_sampling_recovers_the_moments(name: str) -> None:
    policy = POLICIES[name](torch.tensor(MEAN), VARIANCE).double()
    samples, steps = 8000, 100
    # One step before the end for the learned std, whose last step is not recorded.
    z = final(sampled(policy, steps, samples, seed=1))[:, 0, FEATURE:]
    if name == "learned_std":
        assert abs(float(z.mean(0)[0]) - MEAN[FEATURE]) < 0.05
        return
    walk = unroll(policy, steps)
    mean = walk.slope * torch.tensor(MEAN[FEATURE:], dtype=torch.float64)
    error = math.sqrt(walk.variance / samples)
    assert torch.all((z.mean(0) - mean).abs() < 4 * error)
    assert torch.all((z.var(0) - walk.variance).abs() < 4 * walk.variance * math.sqrt(2 / samples))
    # And the walk itself is near the data: its bias falls with the number of steps.
    assert abs(walk.slope - 1) < 0.01
    assert abs(walk.variance - VARIANCE) < 0.03


def test_log_probs_match_the_closed_form() -> None:
    policy = SubspaceGaussian(torch.tensor(MEAN), VARIANCE).double()
    trajectory = sampled(policy, 10, 3, seed=2, atoms=4)
    bucket = trajectory.buckets[0]
    for index, log_prob in bucket.log_probs.items():
        kernel = policy._kernel(trajectory.walk[index].s, trajectory.walk[index].t)
        z, following = bucket.latents[index], bucket.latents[index + 1]
        shift = z - kernel.alpha_t * torch.tensor(MEAN, dtype=torch.float64)
        shift[..., :3] -= shift[..., :3].mean(1, keepdim=True)
        eps = kernel.sigma_t * shift / (kernel.alpha_t**2 * VARIANCE + kernel.sigma_t**2)
        normal = torch.distributions.Normal(kernel.signal * z - kernel.noise * eps, kernel.std)
        expected = normal.log_prob(following).sum((1, 2))
        assert torch.allclose(log_prob, expected, atol=1e-9)


@dataclass(frozen=True)
class Reinforce:
    """Reward minus the others' mean, no normalisation: its gradient is that of the expected reward.

    `error` multiplies the loss: a planted mistake.
    """

    error: float = 1.0
    needs_reference: bool = False
    needs_walk: bool = True

    def old_decay(self, iteration: int) -> None:
        return None

    def advantages(
        self,
        table: RewardTable,
        group_ids: torch.Tensor,
        active: torch.Tensor,
        collective: Collective | None = None,
    ) -> Advantages:
        reward = table.channels["reward"]
        baseline = (reward.sum() - reward) / (len(reward) - 1)
        return Advantages(reward - baseline, {})

    def terms(self, trajectory: Trajectory, epoch: int) -> tuple[Term, ...]:
        return FedGRPO(FedGRPOConfig()).terms(trajectory, epoch)

    def loss(self, policy: DiffusionPolicy, samples: Samples, term: Term) -> StepLoss:
        answer = FedGRPO(FedGRPOConfig()).loss(policy, samples, term)
        return replace(answer, loss=answer.loss * self.error)


def policy_gradient(error: float, seeds: int, samples: int, steps: int) -> tuple[float, float, float]:
    """Estimate of d(-E[r])/dm / S by `update` (mean and standard error over seeds), and its analytic value."""
    estimates = []
    objective = Reinforce(error)
    for seed in range(seeds):
        policy = SubspaceGaussian(torch.tensor(MEAN), VARIANCE).double()
        trajectory = sampled(policy, steps, samples, seed)
        reward = -(final(trajectory)[:, 0, FEATURE] - TARGET).square()
        active = torch.ones(samples, dtype=torch.bool)
        table = RewardTable({"reward": reward}, (None,) * samples)
        optimizer = torch.optim.SGD(policy.current.parameters(), lr=1.0)
        before = float(policy.current.mean.detach()[FEATURE])
        advantages = objective.advantages(table, trajectory.group_ids, active)
        update(policy, trajectory, advantages, objective, optimizer, UpdateConfig(max_grad_norm=1e9))
        estimates.append(before - float(policy.current.mean.detach()[FEATURE]))
    values = torch.tensor(estimates, dtype=torch.float64)
    walk = unroll(SubspaceGaussian(torch.tensor(MEAN), VARIANCE), steps)
    analytic = 2 * (walk.slope * MEAN[FEATURE] - TARGET) * walk.slope / steps
    return float(values.mean()), float(values.std() / math.sqrt(seeds)), analytic


def test_policy_gradient_matches_its_analytic_value() -> None:
    estimate, error, analytic = policy_gradient(1.0, seeds=24, samples=40000, steps=8)
    assert error < 0.02 * abs(analytic)
    assert abs(estimate - analytic) < 4 * error
    # The test would notice a scale error of a tenth.
    wrong, error, _ = policy_gradient(1.1, seeds=24, samples=40000, steps=8)
    assert abs(wrong - analytic) > 4 * error


@pytest.mark.parametrize("name", POLICIES)
def test_a_toy_policy_learns_a_known_reward(name: str) -> None:
    policy = POLICIES[name](torch.tensor(MEAN), VARIANCE)
    objective = FedGRPO(FedGRPOConfig(channel_weights={"reward": 1.0}, step_weighting="balanced"))
    optimizer = torch.optim.Adam(policy.current.parameters(), lr=0.05)
    plan = PromptPlan(SizeDistribution({2: 1, 3: 1}), groups=4, samples_per_group=16, seed=5)
    rewards = []
    for iteration in range(25):
        trajectory = rollout(policy, plan.prompts(iteration), RolloutConfig(20, micro_batch_size=64))
        z = torch.cat([b.latents[max(b.latents)][:, 0, FEATURE] for b in trajectory.buckets])
        reward = -(z - TARGET).square()
        table = RewardTable({"reward": reward}, (None,) * len(reward))
        active = torch.ones(len(reward), dtype=torch.bool)
        advantages = objective.advantages(table, trajectory.group_ids, active)
        update(policy, trajectory, advantages, objective, optimizer, UpdateConfig())
        rewards.append(float(reward.mean()))
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.5


def test_log_prob_reduction() -> None:
    value, mean = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    total = gaussian_log_prob(value, mean, 1.0, mask, "sum")
    assert torch.allclose(gaussian_log_prob(value, mean, 1.0, mask, "mean"), total / torch.tensor([12.0, 4.0]))
    with pytest.raises(ValueError, match="sum"):
        gaussian_log_prob(value, mean, 1.0, mask, "median")
