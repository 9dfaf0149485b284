"""What the core builds on in a reward."""

from __future__ import annotations

import torch

from atomrl.core.protocols import SCOPES, Reward
from atomrl.core.records import Prompts, RewardTable, Structures, tensors_of
from atomrl.core.table_check import misshapen, unexplained
from atomrl.testing.closeness import assert_close


def check_reward(reward: Reward, structures: Structures, prompts: Prompts) -> None:
    """Check that a reward returns one finite number, or NaN with a reason, per sample and channel, reproducibly.

    It must also leave the structures as they are; and, if it is `per_sample`, neither their order nor which of them
    come together must matter.
    """
    assert reward.scope in SCOPES, f"scope is {reward.scope!r}: use {' or '.join(SCOPES)}"
    before = {name: tensor.clone() for name, tensor in tensors_of(structures).items()}
    table, again = _scored(reward, structures, prompts), _scored(reward, structures, prompts)
    after = tensors_of(structures)
    changed = [name for name in before if not torch.equal(after[name].nan_to_num(), before[name].nan_to_num())]
    assert not changed, f"score changes the {', '.join(changed)} of the structures: let it work on copies"
    said = unexplained(table)
    assert said is None, said
    for name, values in table.channels.items():
        assert torch.equal(values.nan_to_num(), again.channels[name].nan_to_num()), (
            f"channel {name} is not reproducible"
        )
    if reward.scope == "per_sample":
        rows = torch.arange(len(structures)).flip(0)
        turned = _scored(reward, structures[rows], prompts[rows])
        for name, values in table.channels.items():
            difference = f"channel {name} depends on the order of samples"
            assert_close(turned.channels[name].flip(0).double(), values.double(), 1e-9, difference)
        half = slice((len(structures) + 1) // 2)
        alone = _scored(reward, structures[half], prompts[half])
        for name, values in alone.channels.items():
            difference = (
                f"channel {name} depends on the samples beside it, of which a per_sample reward sees some: let the "
                "class say compares = True, a whole reward scope = 'per_batch'"
            )
            assert_close(values.double(), table.channels[name][half].double(), 1e-4, difference)


def _scored(reward: Reward, structures: Structures, prompts: Prompts) -> RewardTable:
    """The scores, which are a table of these samples."""
    table = reward.score(structures, prompts)
    said = misshapen(table, structures)
    assert said is None, said
    return table
