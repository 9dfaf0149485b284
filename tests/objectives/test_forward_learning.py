"""What forward-process objectives learn: closed-form oracles of the gradient and of the optimum."""

from dataclasses import replace

import pytest
import torch
from forward_samples import PLAIN, nothing

from atomrl.core.advantages import Advantages
from atomrl.core.iteration import IterationConfig, iterate
from atomrl.core.objectives.awm import AWM
from atomrl.core.objectives.base import Samples
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.forward_options import AWMOptions, NFTOptions
from atomrl.core.objectives.nft import NFT
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.scoring import Scorer
from atomrl.core.update import UpdateConfig
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian


@pytest.mark.parametrize("kind", [SubspaceGaussian, LearnedStdGaussian])
def test_the_gradient_is_the_covariance_of_advantage_and_sample(kind: type) -> None:
    """With the exact score of data N(m, v) the slope of A l by m has a closed form.

    eps_theta - eps has the mean k (z_0 - m) over the noise, k = sigma alpha / (alpha^2 v + sigma^2), and the slope -k
    by m; so the expected slope of NFT's loss is -2 k^2 E[A (z_0 - m)] per element, and A = z_0 - m makes it -2 k^2 var.
    """
    torch.manual_seed(0)
    variance, count, place = 0.25, 20_000, 3
    policy = kind(torch.tensor([0.0, 0, 0, 0.8]), variance).double()
    policy.follow(0.0)
    plan = PromptPlan(SizeDistribution({1: 1}), 1, count, seed=1)
    trajectory = rollout(policy, plan.prompts(0), RolloutConfig(1, count, train_steps=0))
    (bucket,) = trajectory.buckets
    clean = torch.zeros(count, 1, 4, dtype=torch.float64)
    clean[:, 0, place] = 0.8 + variance**0.5 * torch.randn(count, dtype=torch.float64)  # the data themselves
    bucket = replace(bucket, clean=clean)
    total = clean[:, 0, place] - 0.8
    samples = Samples(bucket, Advantages(total, {}), torch.ones(count, dtype=torch.bool), {}, 1)
    objective = NFT(NFTOptions(clip_advantage=10.0, min_time=0.2, max_time=0.6, **PLAIN), nothing)
    (draw, *_) = objective.terms(trajectory, 0)
    found = objective.predictions(policy, samples, draw)
    slopes = found.noise * found.signal / (found.signal.square() * variance + found.noise.square())
    loss = objective.loss(policy, samples, draw).loss.mean()
    (measured,) = torch.autograd.grad(loss, policy.current.mean)
    one = -2 * slopes * total * (found.old - found.target)[:, 0, place] / 4  # each sample's slope; 4 elements
    expected = float((-2 * slopes.square() * variance / 4).mean())
    assert float(measured[place]) == pytest.approx(float(one.mean()), rel=1e-9)
    assert float(measured[place]) == pytest.approx(expected, abs=4 * float(one.std()) / count**0.5)
    assert abs(expected) > 20 * float(one.std()) / count**0.5  # a wrong sign or factor would show


class NearOne:
    """Wants the last feature's mean over the atoms to be 1, where the reward is 0."""

    scope = "per_sample"

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        x = structures.positions[..., 0].double()
        error = ((x * structures.mask).sum(1) / structures.sizes - 1).square()
        return RewardTable({"near": -error}, (None,) * len(structures))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("name", ["nft", "nft, normalised", "awm"])
def test_it_finds_the_optimum_and_stays_there(name: str, decay: float) -> None:
    """Samples x ~ N(m, v / n): the mean of -(x - 1)^2 is largest at m = 1, whatever the variance."""
    compare = FedGRPO(FedGRPOConfig(channel_weights={"near": 1.0})).advantages
    common = {"times": 4, "max_time": 0.8, "old_decay_rate": decay}
    objective = {
        "nft": NFT(NFTOptions(clip_advantage=2.5, **PLAIN, **common), compare),
        "nft, normalised": NFT(NFTOptions(clip_advantage=2.5, **common), compare),
        "awm": AWM(AWMOptions(clip_advantage=2.5, clip_range=0.2, **common), compare),
    }[name]
    policy = LearnedStdGaussian(torch.zeros(3), 0.25)
    plan = PromptPlan(SizeDistribution({2: 1, 3: 1}), groups=4, samples_per_group=32, seed=5)
    optimizer = torch.optim.Adam(policy.trainable().parameters(), lr=0.03)
    config = IterationConfig(RolloutConfig(20, 128), UpdateConfig(num_inner_batch=4))
    scorer, means = Scorer(NearOne()), []
    for iteration in range(40):
        done = iterate(policy, plan.prompts(iteration), scorer, [], objective, optimizer, config)
        means.append(float(policy.current.mean[0].detach()))
    scorer.close()
    assert all(not bucket.log_probs for bucket in done.trajectory.buckets)  # nothing of the walk is kept
    assert means[9] > 0.3
    assert all(abs(mean - 1) < 0.25 for mean in means[-10:]), means


def test_the_old_policy_samples_and_follows() -> None:
    """With a decay above 0 samples come from the old policy, which moves a part of the way before each rollout."""
    compare = FedGRPO(FedGRPOConfig(channel_weights={"near": 1.0})).advantages
    objective = NFT(NFTOptions(times=1, old_decay_rate=0.25, old_decay_max=0.5), compare)
    policy = LearnedStdGaussian(torch.zeros(3), 0.25)
    plan = PromptPlan(SizeDistribution({2: 1}), groups=1, samples_per_group=16, seed=5)
    optimizer = torch.optim.SGD(policy.trainable().parameters(), lr=1.0)
    scorer, config = Scorer(NearOne()), IterationConfig(RolloutConfig(10, 16), UpdateConfig())
    old, drawn = torch.zeros(3), []
    for iteration, decay in enumerate([0.0, 0.25, 0.5, 0.5]):
        old = decay * old + (1 - decay) * policy.current.mean.detach()
        assert objective.old_decay(iteration) == decay
        done = iterate(policy, plan.prompts(iteration), scorer, [], objective, optimizer, config)
        with policy.old():
            assert torch.allclose(policy.answering.mean, old)
        assert policy.answering is policy.current
        alone = LearnedStdGaussian(old, 0.25)
        again = rollout(alone, plan.prompts(iteration), RolloutConfig(10, 16, train_steps=0))
        drawn.append((done.trajectory.buckets[0].clean, again.buckets[0].clean))
        assert not any(parameter.requires_grad for parameter in policy.followed.parameters())
    scorer.close()
    assert all(torch.allclose(found, expected, atol=1e-6) for found, expected in drawn)
    assert not torch.allclose(policy.current.mean.detach(), old)
