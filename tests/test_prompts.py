"""Prompts and buckets: pure functions, whole groups, little padding."""

import pytest
import torch

from atomrl.core.prompts import PromptPlan, SizeDistribution, cut_into_buckets
from atomrl.core.rollout import choose_steps
from atomrl.policies.toy import SubspaceGaussian
from atomrl.util.errors import UserError


def plan(groups: int = 6, each: int = 4) -> PromptPlan:
    return PromptPlan(SizeDistribution({5: 1, 9: 3, 18: 2, 19: 2}), groups, each, seed=11)


def test_prompts_are_a_function_of_seed_and_iteration() -> None:
    first, again, other = plan().prompts(4), plan().prompts(4), plan().prompts(5)
    assert torch.equal(first.sizes, again.sizes)
    assert torch.equal(first.sample_ids, again.sample_ids)
    assert not set(first.sample_ids.tolist()) & set(other.sample_ids.tolist())


def test_sizes_follow_the_histogram() -> None:
    sizes = torch.cat([plan(64, 1).prompts(k).sizes for k in range(40)])
    share = float((sizes == 9).double().mean())
    assert abs(share - 3 / 8) < 4 * (3 / 8 * 5 / 8 / len(sizes)) ** 0.5


def test_focus_reweights_a_range() -> None:
    focused = SizeDistribution({5: 1, 9: 1, 18: 1}).focused(9, None, 10)
    assert dict(focused.counts) == {5: 1, 9: 10, 18: 10}
    with pytest.raises(UserError, match=r"no sample has 20 to .*sizes are 5 to 18 atoms"):
        SizeDistribution({5: 1, 18: 1}).focused(20, None, 10)


def test_ranks_share_whole_groups() -> None:
    prompts = plan().prompts(0)
    parts = [plan().share(prompts, rank, 2) for rank in range(2)]
    assert sorted(torch.cat([part.sample_ids for part in parts]).tolist()) == prompts.sample_ids.tolist()
    assert not set(parts[0].group_ids.tolist()) & set(parts[1].group_ids.tolist())
    with pytest.raises(UserError, match="multiple of the number of processes"):
        plan(5).share(plan(5).prompts(0), 0, 2)


def test_buckets_hold_whole_groups_of_near_size() -> None:
    prompts = plan().prompts(0)
    buckets = cut_into_buckets(prompts, 8)
    assert sorted(torch.cat([b.sample_ids for b in buckets]).tolist()) == prompts.sample_ids.tolist()
    for bucket in buckets:
        assert len(bucket) <= 8
        assert all(int((bucket.group_ids == g).sum()) == 4 for g in bucket.group_ids.unique())
        assert float((bucket.sizes**2).double().mean() / bucket.sizes.max() ** 2) >= 0.95
    with pytest.raises(UserError, match="never split"):
        cut_into_buckets(prompts, 3)


def test_an_empty_histogram_is_refused() -> None:
    with pytest.raises(UserError, match="histogram"):
        SizeDistribution({})


def test_chosen_steps_are_unbiased() -> None:
    walk = SubspaceGaussian(torch.zeros(4)).transitions(10)
    counts = torch.zeros(10)
    for iteration in range(3000):
        chosen = choose_steps(walk, 4, 0, iteration)
        assert len(set(chosen)) == 4
        counts[list(chosen)] += 1
    assert torch.all((counts / 3000 - 0.4).abs() < 4 * (0.4 * 0.6 / 3000) ** 0.5)
    assert choose_steps(walk, None, 0, 0) == tuple(range(10))
    assert choose_steps(walk, 0, 0, 0) == ()


def test_training_can_keep_to_a_part_of_the_walk() -> None:
    walk = SubspaceGaussian(torch.zeros(4)).transitions(10)
    for times in ((0.35, 1.0), (0.0, 0.65), (0.25, 0.75)):
        kept = tuple(step.index for step in walk if times[0] <= step.t <= times[1])
        assert 2 < len(kept) < 10
        assert choose_steps(walk, None, 0, 0, times) == kept
        assert all(set(choose_steps(walk, 3, 0, iteration, times)) <= set(kept) for iteration in range(50))
    with pytest.raises(UserError, match="none of 10 transitions"):
        choose_steps(walk, None, 0, 0, (0.41, 0.49))
