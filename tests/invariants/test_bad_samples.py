"""Samples that exploded, and a loss that is not finite."""

import math
from dataclasses import replace

import pytest
import torch
from small_updates import LIMIT, OBJECTIVE, gradients, policy, roll, score

from atomrl.core.update import UpdateConfig, update, usable
from atomrl.util.errors import NonFiniteLossError, UserError


def test_exploded_samples_take_no_part() -> None:
    model, other = policy(), policy()
    trajectory = roll(model)
    bucket = trajectory.buckets[0]
    last = max(bucket.latents)
    for bad in (math.inf, math.nan, 1e7):
        broken = bucket.latents[last].clone()
        broken[0] = bad
        latents = {**bucket.latents, last: broken}
        poisoned = replace(trajectory, buckets=(replace(bucket, latents=latents), *trajectory.buckets[1:]))
        assert (~usable(poisoned, LIMIT)).sum() == 1
        found = gradients(other, poisoned, UpdateConfig())
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
        other = policy()


def test_a_rollout_without_a_usable_sample_stops() -> None:
    model = policy()
    trajectory = roll(model)
    before = [p.detach().clone() for p in model.current.parameters()]
    optimizer = torch.optim.SGD(model.current.parameters(), lr=1.0)
    advantages = OBJECTIVE.advantages(score(trajectory), trajectory.group_ids, usable(trajectory, 0.0))
    with pytest.raises(UserError, match=r"^all 12 samples of iteration 0 exploded.*nothing to learn from.*$"):
        update(model, trajectory, advantages, OBJECTIVE, optimizer, UpdateConfig(exploded_above=0.0))
    assert all(torch.equal(a, b) for a, b in zip(before, model.current.parameters(), strict=True))


def test_a_nan_in_the_loss_stops_and_names_step_and_sample() -> None:
    model = policy()
    trajectory = roll(model)
    advantages = OBJECTIVE.advantages(score(trajectory), trajectory.group_ids, usable(trajectory, LIMIT))
    advantages.total[1] = math.nan
    optimizer = torch.optim.SGD(model.current.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.current.parameters()]
    with pytest.raises(NonFiniteLossError, match="transition 0") as caught:
        update(model, trajectory, advantages, OBJECTIVE, optimizer, UpdateConfig(exploded_above=LIMIT))
    assert caught.value.reproducer["sample_id"] == int(trajectory.sample_ids[1])
    assert all(torch.equal(a, b) for a, b in zip(before, model.current.parameters(), strict=True))
