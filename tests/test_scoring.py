"""A reward that judges samples by each other sees all of them, however the work was cut."""

from dataclasses import dataclass

import pytest
import torch

from atomrl.core.collective import Alone
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Bucket, Prompts, RewardTable, Structures, Trajectory
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.scoring import Scorer, gathered
from atomrl.policies.toy import SubspaceGaussian


@dataclass
class Rank:
    """Rank of each sample's first coordinate among all samples that it is shown with."""

    scope: str
    calls: int = 0

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        self.calls += 1
        place = structures.positions[:, 0, 0].argsort().argsort().double()
        return RewardTable({"rank": place}, (None,) * len(structures), diagnostics={"sample": prompts.sample_ids + 0.0})

    def close(self) -> None:
        self.calls = -1


def scored(reward: Rank, micro_batch_size: int) -> tuple[RewardTable, Trajectory]:
    prompts = PromptPlan(SizeDistribution({4: 1, 5: 1, 7: 2}), groups=4, samples_per_group=3, seed=3).prompts(0)
    scorer = Scorer(reward)
    policy = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3]))
    trajectory = rollout(policy, prompts, RolloutConfig(5, micro_batch_size), on_bucket=scorer.start)
    table = scorer.finish(trajectory, Alone())
    scorer.close()
    return table, trajectory


def by_sample(table: RewardTable, trajectory: Trajectory) -> torch.Tensor:
    assert torch.equal(table.diagnostics["sample"], trajectory.sample_ids.double())
    return table.channels["rank"][trajectory.sample_ids.argsort()]


def test_the_whole_batch_is_scored_once() -> None:
    ranks = []
    for size in (3, 12):
        table, trajectory = scored(Rank("per_batch"), size)
        ranks.append(by_sample(table, trajectory))
        assert sorted(ranks[-1].tolist()) == list(range(12))
    assert torch.equal(ranks[0], ranks[1])


def test_a_rollout_that_did_not_end_leaves_nothing_behind() -> None:
    """As after Ctrl-C in a notebook."""
    scorer, policy = Scorer(Rank("per_sample")), SubspaceGaussian(torch.zeros(4))
    prompts = PromptPlan(SizeDistribution({4: 1, 7: 1}), groups=4, samples_per_group=3).prompts(0)
    config = RolloutConfig(5, 3)

    def stop_after_one(bucket: Bucket) -> None:
        scorer.start(bucket)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollout(policy, prompts, config, on_bucket=stop_after_one)
    scorer.begin()
    trajectory = rollout(policy, prompts, config, on_bucket=scorer.start)
    assert len(scorer.finish(trajectory, Alone()).reasons) == len(prompts)
    scorer.close()


def test_each_bucket_is_scored_alone() -> None:
    table, trajectory = scored(Rank("per_sample"), 3)
    assert len(trajectory.buckets) == 4
    assert sorted(by_sample(table, trajectory).tolist()) == sorted(4 * [0, 1, 2])


def test_two_ranks_see_the_same_samples() -> None:
    _, trajectory = scored(Rank("per_batch"), 12)
    structures, prompts = trajectory.structures, trajectory.prompts
    first, second = torch.arange(0, 12, 2), torch.arange(1, 12, 2)

    class Two:
        """What rank 0 of two sees, the other's share being known."""

        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            raise AssertionError

        def gather(self, tensor: torch.Tensor) -> torch.Tensor:
            return torch.cat([tensor, others.pop(0)])

    mine, other = structures[first], structures[second]
    asked = prompts[second]
    others = [
        *(torch.tensor([other.numbers.shape[1]]), other.numbers),
        *(torch.tensor([other.numbers.shape[1]]), other.positions),
        *(torch.tensor([other.numbers.shape[1]]), other.mask.to(torch.uint8)),
        asked.sizes,
        asked.group_ids,
        asked.sample_ids,
    ]
    everyone, all_prompts, rows = gathered(mine, prompts[first], Two())
    order = prompts.sample_ids.argsort()
    assert torch.equal(everyone.positions, structures[order].positions)
    assert torch.equal(all_prompts.sizes, prompts[order].sizes)
    assert torch.equal(everyone[rows].positions, mine.positions)
    assert (all_prompts.seed, all_prompts.iteration) == (prompts.seed, prompts.iteration)
