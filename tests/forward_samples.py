"""Samples, predictions and scores that tests of the forward-process objectives share."""

from dataclasses import replace

import torch

from atomrl.core.advantages import Advantages
from atomrl.core.log_prob import over_elements
from atomrl.core.objectives.base import Samples
from atomrl.core.objectives.forward import ForwardObjective, Predictions
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.records import RewardTable
from atomrl.core.rollout import RolloutConfig, rollout

PLAIN = {"self_normalized": False, "time_weighting": "noise"}


def nothing(*_: object) -> Advantages:
    raise AssertionError("these tests bring advantages of their own")


def predictions(seed: int = 0, share: list[float] | None = None) -> Predictions:
    """Three samples of up to four atoms, without meaning, float64; only the current prediction has a gradient."""
    rng = torch.Generator().manual_seed(seed)

    def normals(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.float64)
    wide = mask[..., None]
    old = normals(3, 4, 5) * wide
    current = ((old + 0.1 * normals(3, 4, 5)) * wide).requires_grad_()
    target = normals(3, 4, 5) * wide
    signal = torch.tensor([0.9, 0.6, 0.2], dtype=torch.float64)
    return Predictions(
        current=current,
        old=old,
        initial=None,
        target=target,
        residual=over_elements((old - target).square(), mask, "mean"),
        mask=mask,
        advantages=torch.tensor(share or [1.0, -0.4, 0.25], dtype=torch.float64),
        signal=signal,
        noise=(1 - signal.square()).sqrt(),
        times=torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64),
    )


def gradient(objective: ForwardObjective, found: Predictions) -> torch.Tensor:
    """Of the summed loss with respect to the current prediction, (B, N, D)."""
    (slope,) = torch.autograd.grad(objective.draw_loss(found).loss.sum(), found.current)
    return slope


def samples_of(policy: DiffusionPolicy, count: int = 64, atoms: int = 2, shift: float = 0.0) -> Samples:
    """A rollout's samples, with a feature of their first atom as their advantage; moved in space after it."""
    plan = PromptPlan(SizeDistribution({atoms: 1}), 1, count, seed=4)
    trajectory = rollout(policy, plan.prompts(0), RolloutConfig(20, count, train_steps=0))
    (bucket,) = trajectory.buckets
    moved = bucket.clean.clone()
    moved[..., :3] += shift * bucket.mask[..., None]
    bucket = replace(bucket, clean=moved)
    active = torch.ones(len(bucket), dtype=torch.bool)
    total = bucket.clean[:, 0, 3].double()
    return Samples(bucket, Advantages(total, {}), active, {}, 20)


def scores(groups: int = 8) -> tuple[RewardTable, torch.Tensor, torch.Tensor]:
    """Of groups of 16 samples, two channels of one order; ids of the groups, and that all samples are usable."""
    values = torch.randn(groups * 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = RewardTable({"near": values, "far": values**3}, (None,) * (groups * 16))
    return table, torch.arange(groups * 16) // 16, torch.ones(groups * 16, dtype=torch.bool)
