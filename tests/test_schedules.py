"""Learning rates over a run, and the moving average of the weights, at places where both are known."""

from functools import partial

import pytest
import torch

from atomrl.core.averaging import move_average
from atomrl.core.schedules import lr_factor, tail_factor

WARMUP, TOTAL, LOWEST = 4, 24, 0.1


def factor(step: int, kind: str) -> float:
    return lr_factor(step, kind, WARMUP, TOTAL, LOWEST, decay_fraction=0.5)


@pytest.mark.parametrize("kind", ["constant", "cosine", "wsd"])
def test_the_rate_warms_up(kind: str) -> None:
    assert [factor(step, kind) for step in range(WARMUP + 1)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("constant", {12: 1, TOTAL: 1, 1000: 1}),
        # A quarter, a half and all of the way from the end of the warm-up to the end of the schedule.
        ("cosine", {9: LOWEST + 0.9 * 0.5 * (1 + 0.5**0.5), 14: 0.55, TOTAL: LOWEST, 1000: LOWEST}),
        # The last half of the schedule falls in a straight line.
        ("wsd", {12: 1, 15: 0.775, 18: 0.55, TOTAL: LOWEST, 1000: LOWEST}),
    ],
)
def test_the_rate_after_the_warm_up(kind: str, places: dict[int, float]) -> None:
    assert {step: factor(step, kind) for step in places} == pytest.approx(places)


def test_a_published_decay_is_half_a_cosine_over_its_part_of_what_follows_the_warm_up() -> None:
    """Half of the 20 iterations after the warm-up: from 14 on; a quarter, a half and all of the way down."""
    cosine = partial(lr_factor, kind="wsd", warmup=WARMUP, total=TOTAL, min_ratio=LOWEST, decay_fraction=0.5)
    places = {4: 1, 14: 1, 16.5: LOWEST + 0.9 * 0.5 * (1 + 0.5**0.5), 19: 0.55, TOTAL: LOWEST, 1000: LOWEST}
    assert {step: cosine(step, decay_shape="cosine") for step in places} == pytest.approx(places)
    assert [cosine(step, decay_shape="cosine") for step in range(5)] == [factor(step, "wsd") for step in range(5)]


def test_a_schedule_no_longer_than_its_warm_up() -> None:
    assert lr_factor(4, "cosine", 4, 4, 0.0, 0.2) == 1
    assert lr_factor(5, "cosine", 4, 4, 0.0, 0.2) == 0


def test_an_unknown_schedule() -> None:
    with pytest.raises(ValueError, match="constant, cosine or wsd, got 'linear'"):
        factor(WARMUP, "linear")


def test_the_rate_of_a_pre_training() -> None:
    """Warm-up over 4 steps, constant, then a cosine over the last 10 of 24."""
    found = {step: tail_factor(step, WARMUP, TOTAL, decay=10) for step in (0, 3, 4, 14, 19, 24, 30)}
    assert found == pytest.approx({0: 0.25, 3: 1, 4: 1, 14: 1, 19: 0.5, 24: 0, 30: 0})
    assert tail_factor(0, 0, TOTAL, decay=0) == tail_factor(TOTAL - 1, 0, TOTAL, decay=0) == 1


@pytest.mark.parametrize(
    ("updates", "left"),
    [(0, 0.1), (1, 2 / 11), (torch.tensor(2), 3 / 12), (80, 81 / 90), (81, 0.9), (1000, 0.9)],
)
def test_the_average_forgets_its_start(updates: torch.Tensor | int, left: float) -> None:
    """Of the weights so far, a share of (1 + n) / (10 + n) stays after n updates, and never more than the decay."""
    averaged, current = [torch.ones(2), torch.full((1,), 3.0)], [torch.zeros(2), torch.full((1,), 1.0)]
    first = averaged[0]
    move_average(0.9, averaged, current, updates)
    assert averaged[0] is first
    torch.testing.assert_close(averaged, [torch.full((2,), left), torch.full((1,), 1 + 2 * left)])
    assert [float(value.sum()) for value in current] == [0, 1]
