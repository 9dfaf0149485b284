"""The discrepancy reward against golden vectors and against doing it sample by sample."""

import json
from pathlib import Path

import pytest
import torch

from atomrl.rewards import mmd
from atomrl.rewards.mmd import leave_one_out, squared_mmd, subsample

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "crystal_rewards.json").read_text())["mmd_reward"]
GENERATED = torch.tensor(GOLDEN["generated"], dtype=torch.float64)
REFERENCE = torch.tensor(GOLDEN["reference"], dtype=torch.float64)


def test_golden() -> None:
    individual = torch.tensor(GOLDEN["individual"], dtype=torch.float64)
    assert torch.allclose(leave_one_out(GENERATED, REFERENCE), individual, rtol=1e-5)
    assert float(squared_mmd(GENERATED, REFERENCE)) == pytest.approx(-GOLDEN["set_reward"], rel=1e-5)


@pytest.mark.parametrize("block", [7, 20, 4096])
def test_equals_leaving_each_out(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmd, "BLOCK", block)
    draw = torch.Generator().manual_seed(0)
    generated = torch.randn(9, 4, generator=draw, dtype=torch.float64) + 0.3
    reference = torch.randn(33, 4, generator=draw, dtype=torch.float64)
    everyone = squared_mmd(generated, reference)
    rows = torch.arange(9)
    expected = torch.stack([squared_mmd(generated[rows != row], reference) - everyone for row in range(9)])
    assert torch.allclose(leave_one_out(generated, reference), expected, rtol=1e-10)


def test_a_missing_kind_pays() -> None:
    draw = torch.Generator().manual_seed(0)
    reference = torch.cat([torch.randn(200, 3, generator=draw) - 2, torch.randn(200, 3, generator=draw) + 2])
    generated = torch.cat([torch.randn(20, 3, generator=draw) - 2, torch.full((1, 3), 2.0)])
    rewards = leave_one_out(generated, reference)
    assert rewards[20] > rewards[:20].max()


def test_too_few_to_leave_one_out() -> None:
    assert leave_one_out(GENERATED[:2], REFERENCE).isnan().all()
    assert leave_one_out(GENERATED[:3], REFERENCE).isfinite().all()
    assert squared_mmd(GENERATED[:1], REFERENCE).isnan()


def test_subsampling_is_the_same_each_time() -> None:
    rows = torch.arange(1000.0)[:, None]
    first, again = subsample(rows, 100), subsample(rows, 100)
    assert torch.equal(first, again)
    assert len(first.unique()) == 100
    assert not torch.equal(first, subsample(rows, 100, seed=1))
    assert torch.equal(subsample(rows, 1000), rows)
