"""The four normalisations: golden vectors, gaps, groups, degenerate input."""

import json
import math
from pathlib import Path

import pytest
import torch

from atomrl.core.advantages import Groups
from atomrl.core.normalize import NORMALIZE_FNS, normalize
from atomrl.util.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "crystal_rewards.json").read_text())["normalize_fn"]


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", NORMALIZE_FNS)
def test_golden(name: str) -> None:
    found = normalize(tensor(GOLDEN["rewards"]), name, eps=GOLDEN["eps"])
    assert torch.allclose(found, tensor(GOLDEN[name]), atol=1e-6)


@pytest.mark.parametrize("name", ["std", "norm"])
def test_golden_constant(name: str) -> None:
    found = normalize(tensor(GOLDEN["constant"]), name, eps=GOLDEN["eps"])
    assert found.tolist() == GOLDEN[f"constant_{name}"]


def test_a_spread_below_eps_counts_as_none() -> None:
    values = tensor([0.7, 0.7 + 5e-5])
    for name in ("std", "norm", "subtract_mean"):
        assert normalize(values, name).tolist() == [0, 0]
        assert normalize(values, name, eps=1e-6).abs().max() > 0
    assert torch.equal(normalize(values, "clip"), values)


def test_one_value_has_no_spread() -> None:
    for name in ("std", "norm", "subtract_mean"):
        assert normalize(tensor([3.0]), name).tolist() == [0]


@pytest.mark.parametrize("name", ["std", "norm", "subtract_mean"])
def test_groups_are_normalised_alone_and_gaps_do_not_count(name: str) -> None:
    values = tensor([1.0, 10.0, math.nan, 2.0, 30.0, 4.0])
    groups = Groups.of(torch.tensor([5, 2, 5, 5, 2, 5]))
    found = normalize(values, name, groups=groups)
    assert math.isnan(found[2])
    assert torch.allclose(found[[0, 3, 5]], normalize(tensor([1.0, 2.0, 4.0]), name))
    assert torch.allclose(found[[1, 4]], normalize(tensor([10.0, 30.0]), name))


def test_a_group_without_values_stays_unknown() -> None:
    found = normalize(tensor([math.nan, math.nan, 1.0, 2.0]), "norm", groups=Groups.of(torch.tensor([0, 0, 1, 1])))
    assert found.isnan().tolist() == [True, True, False, False]


def test_clip_range() -> None:
    assert normalize(tensor([-5.0, 0.2, 5.0]), "clip", clip_range=(0.0, 3.0)).tolist() == [0, 0.2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"normalize_fn": "standard"}, "std, norm"), ({"eps": -1.0}, "eps"), ({"clip_range": (1.0, 0.0)}, "clip_range")],
)
def test_what_makes_no_sense_is_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        normalize(tensor([1.0, 2.0]), **{"normalize_fn": "std", **options})


@pytest.mark.parametrize("name", ["std", "norm", "subtract_mean"])
def test_without_eps_equal_values_are_0_and_not_missing(name: str) -> None:
    assert normalize(torch.ones(3, dtype=torch.float64), name, eps=0.0).tolist() == [0, 0, 0]
    assert normalize(torch.tensor([1.0, 2.0], dtype=torch.float64), name, eps=0.0).isfinite().all()
