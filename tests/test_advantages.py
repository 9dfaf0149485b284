"""FED-GRPO advantages: golden cases, failures, degenerate groups."""

import json
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import rankdata
from staged import after_failures

from atomrl.core.advantages import Groups
from atomrl.core.normalize import group_advantages, group_ranks
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.likelihood import StepTerms
from atomrl.core.records import GATED, RewardTable
from atomrl.util.errors import UserError

GOLDEN = json.loads((Path(__file__).parent / "data" / "molecule_rewards.json").read_text())["fed_grpo_advantages"]
GROUPS = torch.tensor(GOLDEN["group_index"])


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(**channels: torch.Tensor) -> RewardTable:
    rows = len(next(iter(channels.values())))
    return RewardTable(channels, (None,) * rows)


def advantages(objective: FedGRPO, rewards: RewardTable, groups: torch.Tensor) -> torch.Tensor:
    return objective.advantages(rewards, groups, torch.ones(len(groups), dtype=torch.bool)).total


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if case["kind"].startswith("scalar")])
def test_golden(case: dict) -> None:
    if case["kind"] == "scalar_split":
        weights = {"force": case["w_force"], "energy": case["w_energy"]}
        rewards = table(force=tensor(case["force_rewards"]), energy=tensor(case["energy_rewards"]))
    else:
        weights, rewards = {"reward": 1.0}, table(reward=tensor(case["rewards"]))
    objective = FedGRPO(FedGRPOConfig(channel_weights=weights, clip_advantage_value=case["clip"]))
    result = objective.advantages(rewards, GROUPS, torch.ones(len(GROUPS), dtype=torch.bool))
    assert torch.allclose(result.total, tensor(case["out"]["advantages"]), atol=2e-6)
    for name in ("force", "energy"):
        if f"{name}_advantages" in case["out"]:
            assert torch.allclose(result.channels[name], tensor(case["out"][f"{name}_advantages"]), atol=2e-6)


def test_a_group_of_one_or_of_equal_rewards_has_no_advantage() -> None:
    groups = Groups.of(torch.tensor([7, 3, 3, 3]))
    result = group_advantages(tensor([5.0, 0.1, 0.1, 0.1]), torch.ones(4, dtype=torch.bool), groups)
    assert result.tolist() == [0, 0, 0, 0]


def test_failed_scores() -> None:
    groups = torch.tensor([0, 0, 0, 1, 1])
    rewards = table(force=tensor([1.0, -2.0, math.nan, math.nan, math.nan]))
    filled = after_failures(rewards, groups).channels["force"]
    assert filled[:3].tolist() == [1, -2, -2]
    assert filled.isfinite().tolist() == [True, True, True, False, False]
    masked = after_failures(rewards, groups, "mask").channels["force"]
    assert masked.isfinite().tolist() == [True, True, False, False, False]


def test_gated_samples_are_left_out_whatever_failures_count_as() -> None:
    rewards = RewardTable({"force": tensor([1.0, 2.0, math.nan, math.nan])}, (None, None, GATED, "scf"))
    objective = FedGRPO(FedGRPOConfig(channel_weights={"force": 1.0}))
    groups = torch.zeros(4, dtype=torch.int64)
    result = objective.advantages(after_failures(rewards, groups), groups, torch.ones(4, dtype=torch.bool))
    assert float(result.total[2]) == 0
    assert float(result.total[3]) == float(result.total[0]) < 0


def test_unusable_samples_do_not_move_their_group() -> None:
    objective = FedGRPO(FedGRPOConfig(channel_weights={"force": 1.0}))
    groups = torch.zeros(4, dtype=torch.int64)
    active = torch.tensor([True, True, True, False])
    result = objective.advantages(table(force=tensor([1.0, 2.0, 3.0, 1e9])), groups, active)
    alone = advantages(objective, table(force=tensor([1.0, 2.0, 3.0])), groups[:3])
    assert torch.allclose(result.total[:3], alone)
    assert float(result.total[3]) == 0


def test_a_weight_for_an_absent_channel_is_refused() -> None:
    objective = FedGRPO(FedGRPOConfig(channel_weights={"force": 1.0, "energy": 0.1}))
    with pytest.raises(UserError, match="energy"):
        advantages(objective, table(force=tensor([1.0, 2.0])), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("weighting", ["published", "balanced"])
def test_clipped_loss(weighting: str) -> None:
    new = torch.tensor([0.0, 0.5, 0.5, -0.5, 50.0], dtype=torch.float64)
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    active = torch.tensor([True, True, True, True, False])
    terms = StepTerms(new, torch.zeros(5, dtype=torch.float64), advantage, active, balance=0.5, divergence=None)
    loss = FedGRPO(FedGRPOConfig(clip_range=0.2, step_weighting=weighting)).step_loss(terms)
    scale = 0.5 if weighting == "balanced" else 1.0
    up, down = math.exp(0.5 * scale), math.exp(-0.5 * scale)
    assert torch.allclose(loss.loss, tensor([-1.0, -min(up, 1.2), up, max(0.8, down), 0.0]))
    assert loss.counts["log_ratio_clamped"].tolist() == [0, 0, 0, 0, 1]


def test_ranks_in_groups() -> None:
    """By scipy's ranking, group by group; one reward far from the others changes nothing for them."""
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 5, (60,), generator=rng)
    rewards = torch.randint(0, 6, (60,), generator=rng).double()  # with ties
    active = torch.rand(60, generator=rng) > 0.2
    found = group_ranks(rewards, active, Groups.of(ids))
    for name in range(5):
        rows = (ids == name) & active
        assert found[rows].tolist() == (rankdata(rewards[rows].numpy()) - 1).tolist()
    assert not found[~active].any()
    worst = rewards.argmin()
    far = rewards.clone()
    far[worst] = -1e6
    again = group_ranks(far, active, Groups.of(ids))
    alone = rewards.clone()
    alone[worst] = -1
    assert torch.equal(again, group_ranks(alone, active, Groups.of(ids)))
    assert group_ranks(rewards[:0], active[:0], Groups.of(ids[:0])).shape == (0,)
