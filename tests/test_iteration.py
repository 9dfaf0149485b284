"""One iteration is one function: the example runs it alone, and what it hands to an objective is all there is."""

import runpy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from atomrl.core.advantages import Advantages
from atomrl.core.iteration import IterationConfig, iterate
from atomrl.core.objectives.base import Objective, Samples, StepLoss, Term
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.forward_options import NFTOptions
from atomrl.core.objectives.nft import NFT
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.random import key, keyed_normals
from atomrl.core.records import Prompts, RewardTable, Structures, Trajectory
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.scoring import Scorer
from atomrl.core.stages import FailedScores
from atomrl.core.update import UpdateConfig
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["grpo_in_60_lines.py", "nft_in_60_lines.py"])
def test_an_example_in_sixty_lines_learns(name: str) -> None:
    source = (EXAMPLES / name).read_text()
    assert len(source.splitlines()) <= 60
    assert "lightning" not in source
    rewards = runpy.run_path(str(EXAMPLES / name))["main"](iterations=15)
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.3


class Fourth:
    """Rewards the last feature's nearness to a value; reads it from the positions, where the toy puts it."""

    scope = "per_sample"

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        x = structures.positions[..., 0].double()
        channel = -((x - 1.0).square() * structures.mask).sum(1) / structures.sizes
        forces = (2 * (1.0 - x) * structures.mask)[..., None].expand(-1, -1, 3)
        return RewardTable({"x": channel}, (None,) * len(structures), fields={"forces": forces})

    def close(self) -> None:
        pass


@dataclass
class Denoising:
    """A forward-process objective: advantage-weighted denoising of re-noised clean samples, without log-probabilities.

    Fits the seam of `Objective`: its terms are draws of times, its loss asks `forward_noise` and `predict`.
    """

    draws: int = 4
    needs_reference: bool = False
    needs_walk: bool = False
    seen: list[Samples] = field(default_factory=list)

    def old_decay(self, iteration: int) -> None:
        return None

    def advantages(
        self, table: RewardTable, group_ids: torch.Tensor, active: torch.Tensor, collective: Collective | None = None
    ) -> Advantages:
        return FedGRPO(FedGRPOConfig(channel_weights={"x": 1.0})).advantages(table, group_ids, active)

    def terms(self, trajectory: Trajectory, epoch: int) -> Sequence[Term]:
        return [Draw(epoch * self.draws + number) for number in range(self.draws)]

    def loss(self, policy: DiffusionPolicy, samples: Samples, term: Term) -> StepLoss:
        self.seen.append(samples)
        bucket, clean = samples.bucket, samples.clean
        prompts = bucket.prompts
        seed = key(prompts.seed, prompts.iteration, "forward", term.index)
        normals = keyed_normals(prompts.sample_ids, clean.shape[1], clean.shape[2], seed, clean.dtype)
        t = torch.linspace(0.1, 0.9, len(samples), dtype=clean.dtype).roll(term.index)
        noised, target = policy.forward_noise(clean, bucket.mask, t, normals)
        error = (policy.predict(noised, bucket.mask, t, prompts) - target).square() * bucket.mask[..., None]
        mean = error.sum((1, 2)) / (bucket.mask.sum(1) * clean.shape[2])
        loss = samples.advantages.total.to(mean.dtype) * mean
        return StepLoss(torch.where(samples.active, loss, 0.0), {"denoising": mean.detach()})


@dataclass(frozen=True)
class Draw:
    """The number of a draw of times."""

    index: int


def test_a_forward_process_objective_fits_the_seam() -> None:
    """It trains without a recorded transition, sees z_0 and per-atom fields, is guarded, and climbs."""
    policy = LearnedStdGaussian(torch.zeros(3), 0.25)
    plan = PromptPlan(SizeDistribution({2: 1, 3: 1}), groups=4, samples_per_group=16, seed=5)
    optimizer = torch.optim.Adam(policy.trainable().parameters(), lr=0.02)
    config = IterationConfig(
        RolloutConfig(20, 64),
        UpdateConfig(epoch_per_rollout=2, terms_per_step=2, max_behaviour_kl=0.003),
    )
    scorer, objective, rewards, stats = Scorer(Fourth()), Denoising(), [], []
    for iteration in range(12):
        prompts = plan.prompts(iteration)
        done = iterate(policy, prompts, scorer, [FailedScores()], objective, optimizer, config)
        rewards.append(float(done.table.channels["x"].mean()))
        stats.append(done.stats)
    scorer.close()
    assert done.trajectory.trained == ()
    assert all(not bucket.log_probs for bucket in done.trajectory.buckets)
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.5, rewards
    assert all(row["step_halvings"] > 0 and 0 < row["behaviour_kl"] <= 0.003 for row in stats)
    last = objective.seen[-1]
    assert last.clean.shape == last.fields["forces"].shape
    assert torch.equal(last.bucket.structures.positions, last.bucket.clean[..., :3] * last.bucket.mask[..., None])


def test_the_objective_gets_advantages_of_its_own_step() -> None:
    """Where each step has a number of its own, each transition teaches with that one alone."""
    policy = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).double()
    plan = PromptPlan(SizeDistribution({3: 1}), groups=1, samples_per_group=4, seed=1)
    seen: dict[int, torch.Tensor] = {}

    class Watching(FedGRPO):
        def advantages(self, table, group_ids, active, collective=None):
            found = super().advantages(table, group_ids, active, collective)
            return replace(found, by_step=torch.arange(6.0).expand(len(found), 6))

        def loss(self, policy, samples, term):
            seen[term.index] = samples.advantages.at(term)
            return super().loss(policy, samples, term)

    objective = Watching(FedGRPOConfig(channel_weights={"x": 1.0}))
    optimizer = torch.optim.SGD(policy.trainable().parameters(), lr=0.0)
    config = IterationConfig(RolloutConfig(6, 4), UpdateConfig(train_micro_batch_size=3))
    scorer = Scorer(Fourth())
    iterate(policy, plan.prompts(0), scorer, [], objective, optimizer, config)
    scorer.close()
    assert {index: set(values.tolist()) for index, values in seen.items()} == {k: {float(k)} for k in range(6)}


GUARDED: dict[str, Objective] = {
    "fed_grpo": FedGRPO(FedGRPOConfig(channel_weights={"last": 1.0}, step_weighting="balanced")),
    "nft": NFT(NFTOptions(times=8), FedGRPO(FedGRPOConfig(channel_weights={"last": 1.0})).advantages),
}


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("kind", [SubspaceGaussian, LearnedStdGaussian])
def test_the_guard_bounds_the_distance_to_the_policy_that_sampled(kind: type, name: str) -> None:
    """Over all epochs and blocks of an iteration together, not each step from where the one before it ended."""
    limit = 1e-4
    policy = kind(torch.tensor([0.0, 0, 0, 0.3]), 0.25).double()
    plan = PromptPlan(SizeDistribution({2: 1, 3: 1}), groups=4, samples_per_group=16, seed=5)
    optimizer = torch.optim.Adam(policy.trainable().parameters(), lr=0.05)
    config = IterationConfig(
        RolloutConfig(10, 64),
        UpdateConfig(epoch_per_rollout=3, terms_per_step=1, max_behaviour_kl=limit),
    )
    scorer = Scorer(Last())
    walked = rollout(policy, plan.prompts(0), config.rollout)  # the same samples with the whole walk, kept by no NFT
    done = iterate(policy, plan.prompts(0), scorer, [], GUARDED[name], optimizer, config)
    scorer.close()
    assert done.stats["step_halvings"] > 0
    assert 0 < true_kl(policy, walked) <= 3 * limit  # of the whole walk; the guard looks at two transitions
    assert done.stats["behaviour_kl"] <= limit


class Last:
    """A reward without meaning: the number of the sample in its group."""

    scope = "per_sample"

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        return RewardTable({"last": (prompts.sample_ids % 16).double()}, (None,) * len(structures))

    def close(self) -> None:
        pass


def true_kl(policy: DiffusionPolicy, trajectory: Trajectory) -> float:
    """Mean over samples and all trained transitions of balance^2 KL(policy that sampled || policy now)."""
    fresh = type(policy)(torch.tensor([0.0, 0, 0, 0.3]), 0.25).double()
    found = []
    with torch.no_grad():
        for bucket in trajectory.buckets:
            for index in trajectory.trained:
                step = trajectory.walk[index]
                old, new = (p.step(bucket.latents[index], bucket.mask, step, bucket.prompts) for p in (fresh, policy))
                old_std, new_std = (torch.as_tensor(s.std).double() for s in (old, new))
                terms = torch.log(new_std / old_std) - 0.5
                terms = terms + (old_std.square() + (old.mean - new.mean).square()) / (2 * new_std.square())
                found.append((terms * bucket.mask[..., None]).sum((1, 2)) * step.balance**2)
    return float(torch.cat(found).mean())


def test_a_halved_step_leaves_the_moments_as_they_are() -> None:
    """Adam averages gradients, which were what they were, however much of the step is kept."""
    states = []
    for limit in (1e30, 1e-4):
        policy = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3]), 0.25).double()
        plan = PromptPlan(SizeDistribution({2: 1, 3: 1}), groups=4, samples_per_group=16, seed=5)
        optimizer = torch.optim.Adam(policy.trainable().parameters(), lr=0.05)
        scorer, objective = Scorer(Last()), FedGRPO(FedGRPOConfig(channel_weights={"last": 1.0}))
        config = IterationConfig(RolloutConfig(10, 64), UpdateConfig(max_behaviour_kl=limit))
        done = iterate(policy, plan.prompts(0), scorer, [], objective, optimizer, config)
        scorer.close()
        states.append((done.stats["step_halvings"], optimizer.state[policy.current.mean], policy.current.mean.detach()))
    (free, moments, full), (halved, kept, part) = states
    assert free == 0 < halved
    assert torch.equal(moments["exp_avg"], kept["exp_avg"])
    assert torch.equal(moments["exp_avg_sq"], kept["exp_avg_sq"])
    start = torch.tensor([0.0, 0, 0, 0.3], dtype=torch.float64)
    torch.testing.assert_close(part - start, (full - start) / 2**halved)
