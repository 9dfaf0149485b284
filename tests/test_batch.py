"""Records lose nothing: one code slices, joins, pads, moves and gathers every field, whatever a record holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import pytest
import torch
from torch import Tensor

from atomrl.core.batch import ATOMS, Batch
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Advantages, Bucket, RewardTable, Transition
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian


def column(count: int, start: float = 0.0) -> Tensor:
    return torch.arange(count, dtype=torch.float64) + start


def scores(count: int, atoms: int, start: float = 0.0) -> RewardTable:
    """A table in which each field holds something."""
    return RewardTable(
        channels={"force": column(count, start)},
        reasons=tuple(None if row % 2 else f"überlappt {start + row}" for row in range(count)),
        potentials={7: RewardTable({"force": column(count, start + 200)}, (None,) * count)},
        rewards_ts={"force": torch.stack([column(count, start + 100), column(count, start + 200)], dim=1)},
        fields={"forces": torch.ones(count, atoms, 3, dtype=torch.float64)},
        diagnostics={"reward": column(count, start + 300)},
        filled={"force": column(count, start) % 3 == 0},
        seconds={"xtb": 1.5},
    )


@dataclass(frozen=True)
class WithBond(RewardTable):
    """A record with one field more than the core knows of."""

    bonds: Annotated[Mapping[str, Mapping[int, Tensor]], ATOMS] = field(default_factory=dict)


@dataclass(frozen=True)
class Forgetful(Batch):
    """A record whose author declared nothing."""

    values: Tensor


class Both:
    """A collective of two ranks that hold the same rows."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor * 2

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor])


def test_potentials_and_all_else_survive_a_concatenation() -> None:
    joined = RewardTable.concatenate([scores(2, 3), scores(3, 5, start=10.0)])
    assert len(joined) == 5
    assert joined.potentials[7].channels["force"].tolist() == [200, 201, 210, 211, 212]
    assert joined.rewards_ts["force"][:, 0].tolist() == [100, 101, 110, 111, 112]
    assert joined.filled["force"].tolist() == [True, False, False, False, True]
    assert joined.fields["forces"].shape == (5, 5, 3)
    assert joined.fields["forces"][0, 3:].abs().sum() == 0
    assert joined.seconds == {"xtb": 3.0}
    assert joined.reasons == (*scores(2, 3).reasons, *scores(3, 5, start=10.0).reasons)


def test_a_new_field_is_found_again() -> None:
    """After a slice, a concatenation, a padding, a move and a gathering, without a word about it anywhere."""
    table = WithBond({"force": column(4)}, (None,) * 4, bonds={"order": {2: column(4)[:, None] * torch.ones(4, 3)}})
    rows = torch.tensor([3, 1])
    assert table[rows].bonds["order"][2][:, 0].tolist() == [3, 1]
    assert table[1:3].bonds["order"][2][:, 0].tolist() == [1, 2]
    assert table[column(4) > 2].bonds["order"][2][:, 0].tolist() == [3]
    wide = table.pad(5)
    assert wide.bonds["order"][2].shape == (4, 5)
    assert WithBond.concatenate([table[:1], wide[2:]]).bonds["order"][2][:, 0].tolist() == [0, 2, 3]
    assert table.to(torch.device("meta")).bonds["order"][2].is_meta
    assert table.gather(Both()).bonds["order"][2].shape == (8, 3)


def test_a_table_is_gathered_whole() -> None:
    """Texts, flags, times and nested mappings too; tests/invariants holds the same on real processes."""
    table = scores(3, 4)
    both = table.gather(Both())
    assert both.reasons == table.reasons * 2
    assert both.filled["force"].tolist() == [True, False, False] * 2
    assert both.filled["force"].dtype == torch.bool
    assert both.seconds == {"xtb": 3.0}
    assert both.rewards_ts["force"][:, 0].tolist() == [100, 101, 102] * 2
    assert both.potentials[7].channels["force"].tolist() == [200, 201, 202] * 2


def test_parts_that_do_not_fit_together_are_refused() -> None:
    table = scores(2, 3)
    with pytest.raises(ValueError, match="channels: parts have different entries"):
        RewardTable.concatenate([table, RewardTable({"energy": column(1)}, (None,))])
    prompts = PromptPlan(SizeDistribution({3: 1}), 1, 2).prompts(0)
    with pytest.raises(ValueError, match="iteration: parts have different values, 0 and others"):
        type(prompts).concatenate([prompts, PromptPlan(SizeDistribution({3: 1}), 1, 2).prompts(1)])
    conditioned = type(prompts)(0, 0, prompts.sizes, prompts.group_ids, prompts.sample_ids, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="context: a part has"):
        type(prompts).concatenate([conditioned, prompts])


def test_a_field_without_an_axis_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.values declares no axis"):
        Forgetful(column(2))[:1]


@pytest.mark.parametrize("kind", [SubspaceGaussian, LearnedStdGaussian])
def test_a_bucket_is_cut_and_joined_again(kind: type) -> None:
    policy = kind(torch.tensor([0.0, 0, 0, 0.3]))
    prompts = PromptPlan(SizeDistribution({4: 1, 7: 1}), groups=2, samples_per_group=3, seed=3).prompts(0)
    config = RolloutConfig(6, 6, train_steps=3, estimate_at=(0, 4))
    bucket = rollout(policy, prompts, config).buckets[0]
    joined = Bucket.concatenate([bucket[:1], bucket[1:]])
    assert joined.latents.keys() == bucket.latents.keys()
    assert set(bucket.estimates) == {0, 4}
    for index, step in bucket.behaviour.items():
        assert torch.equal(joined.behaviour[index].mean, step.mean)
        assert torch.equal(torch.as_tensor(joined.behaviour[index].std), torch.as_tensor(step.std))
    assert torch.equal(joined.clean, bucket.clean)
    assert torch.equal(joined.estimates[4].positions, bucket.estimates[4].positions)
    assert joined.log_prob_reduction == "sum"


def test_advantages_by_step() -> None:
    step = Transition(2, 0.5, 0.4, trainable=True, balance=1.0)
    same = Advantages(column(3), {})
    assert same.at(step).tolist() == [0, 1, 2]
    shaped = Advantages(column(3), {}, by_step=column(9).reshape(3, 3))
    assert shaped[1:].at(step).tolist() == [5, 8]
