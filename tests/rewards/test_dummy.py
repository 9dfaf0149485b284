"""The reward for smoke tests."""

import torch

from atomrl.core.records import Prompts, Structures
from atomrl.rewards.dummy import DummyReward
from atomrl.testing import check_reward


def test_scores_compactness_and_explains_failures():
    positions = torch.zeros(4, 2, 3)
    positions[0, 0, 0], positions[0, 1, 0] = -2.0, 2.0
    positions[1] = positions[0] + 100.0
    positions[2, 0, 0] = torch.nan
    mask = torch.tensor([[True, True], [True, True], [True, True], [False, False]])
    structures = Structures(mask.long(), positions, mask)
    prompts = Prompts(0, 0, structures.sizes, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    check_reward(DummyReward(), structures, prompts)
    table = DummyReward().score(structures, prompts)
    assert table.reasons == (None, None, "nonfinite", "no_atoms")
    torch.testing.assert_close(table.channels["force"][:2], torch.tensor([-1.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(table.channels["energy"][:2], torch.tensor([0.0, 0.0], dtype=torch.float64))
    assert table.channels["force"][2:].isnan().all()
