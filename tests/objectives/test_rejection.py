"""Rejection fine-tuning: what is kept of each group, and how it teaches."""

import pytest
import torch
from forward_samples import gradient, predictions, scores

from atomrl.core.objectives import rejection
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.forward_options import RejectionOptions
from atomrl.core.objectives.rejection import Rejection
from atomrl.core.records import RewardTable


def test_rejection_denoises_the_best_of_each_group() -> None:
    """The slope of the mean denoising loss of the best quarter of each group; the others have none."""
    compare = FedGRPO(FedGRPOConfig(channel_weights={"near": 1.0})).advantages
    objective = Rejection(RejectionOptions(kept_fraction=0.25), compare)
    ids = torch.tensor([0] * 8 + [1] * 4 + [2] * 4)
    rewards = torch.tensor([1.0, 8, 2, 7, 3, 6, 4, 5, 9, 1, 1, 1, 2, 2, 2, 2], dtype=torch.float64)
    active = torch.ones(16, dtype=torch.bool)
    active[1] = False
    found = objective.advantages(RewardTable({"near": rewards}, (None,) * 16), ids, active)
    assert found.total.nonzero().squeeze(1).tolist() == [3, 5, 8]  # none in a group whose samples are all alike
    kept = predictions(share=[1.0, 0.0, 1.0])
    slope = gradient(objective, kept)
    elements = (kept.mask.sum(1) * 5)[:, None, None]
    expected = 2 * (kept.current - kept.target).detach() * kept.mask[..., None] / elements / 0.25
    assert torch.allclose(slope[[0, 2]], expected[[0, 2]], atol=1e-12)
    assert not slope[1].any()


@pytest.mark.parametrize("advantages", ["channels", "ranks", "sum"])
def test_no_bound_of_the_advantages_lets_rejection_keep_more(advantages: str) -> None:
    """One of 16, though the best of a group are alike beyond the bound."""
    settings = {"advantages": advantages, "group_reward_norm": True, "reward_normalize_fn": "std", "reward_eps": 1e-4}
    options = {"kept_fraction": 1 / 16, "clip_advantage": 0.5}
    objective = rejection.SPEC.make({**settings, "rejection": options}, {"near": 1.0, "far": 1.0}, 16)
    table, ids, active = scores()
    found = objective.advantages(table, ids, active)
    best = table.channels["near"].reshape(-1, 16).argmax(1)
    kept = found.total.reshape(-1, 16).nonzero()
    assert kept.tolist() == [[group, row] for group, row in enumerate(best.tolist())]
    assert found.stats["kept_fraction"] == 1 / 16
