"""What the core builds on in a reward."""

from __future__ import annotations

import torch

from atomrl.core.protocols import Reward
from atomrl.core.records import Prompts, Structures
from atomrl.testing.closeness import assert_close


def check_reward(reward: Reward, structures: Structures, prompts: Prompts) -> None:
    """Check that a reward returns one finite number, or NaN with a reason, per sample and channel, reproducibly."""
    assert reward.scope in {"per_sample", "per_batch"}, f"scope is {reward.scope!r}: use per_sample or per_batch"
    table, again = reward.score(structures, prompts), reward.score(structures, prompts)
    assert len(table) == len(structures), f"{len(table)} rows for {len(structures)} structures"
    assert table.channels, "no channel"
    for name, values in table.channels.items():
        assert values.shape == (len(structures),), f"channel {name} has shape {tuple(values.shape)}"
        unexplained = torch.tensor([reason is None for reason in table.reasons]) & ~torch.isfinite(values.cpu())
        assert not bool(unexplained.any()), f"channel {name} has NaN or infinity without a reason"
        assert torch.equal(values.nan_to_num(), again.channels[name].nan_to_num()), (
            f"channel {name} is not reproducible"
        )
    if reward.scope == "per_sample":
        rows = torch.arange(len(structures)).flip(0)
        turned = reward.score(structures[rows], prompts[rows])
        for name, values in table.channels.items():
            assert_close(turned.channels[name].flip(0), values, 1e-9, f"channel {name} depends on the order of samples")
