"""What teaches: how much of the gradient of each part of the walk, or of each range of times, is signal.

Two rollouts with different noise give two gradients g, g' of one part of the walk. What they share is signal: the mean
of g . g' over pairs of rollouts estimates the squared length of the expected gradient without bias, and g . g that of
signal and noise together. Their cosine says how far one rollout's gradient points in the right direction.

The policy gradient is that of the transitions' log-probabilities; the denoising gradient that of DiffusionNFT before
its first step, on the same samples, noised again at times in a range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from atomrl.config import load_config
from atomrl.core.advantages import Advantages
from atomrl.core.collective import Alone
from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.objectives.forward_options import NFTOptions
from atomrl.core.objectives.nft import NFT
from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.records import Trajectory
from atomrl.core.update import Lesson, UpdateConfig, accumulate, reduce_and_clip, trainable_parameters
from atomrl.core.update_log import UpdateLog
from atomrl.training.rl_module import build_module

DRAWS = 2
"""Of a time and noise per sample."""

PARTS = (
    (0.0, 0.1),
    (0.1, 1.0),
    (0.1, 0.2),
    (0.1, 0.3),
    (0.1, 0.4),
    (0.1, 0.5),
    (0.2, 0.4),
    (0.3, 0.6),
    (0.5, 1.0),
    (0.0, 1.0),
)
"""Ranges of t that are summed up."""

RANGES = (*((place / 10, (place + 1) / 10) for place in range(10)), (0.1, 0.4), (0.0, 0.8), (0.0, 1.0))
"""Ranges of times that samples are noised again at."""


@dataclass(frozen=True)
class Signal:
    """One part of the walk, or one range of times.

    Attributes:
        what: `transitions` or `draws`.
        low, high: these have low < t <= high.
        count: how many of them were looked at.
        length: root mean square length of its gradient.
        cosine: mean cosine between the gradients of two rollouts.
        error: its standard error, from the rollouts' own means.
    """

    what: str
    low: float
    high: float
    count: int
    length: float
    cosine: float
    error: float

    def line(self) -> str:
        """As a line of the benchmark."""
        return (
            f"gradient of {self.low:.2f} < t <= {self.high:.2f}, {self.count:2} {self.what}"
            f"   length {self.length:9.1f}   cosine of two rollouts {self.cosine:6.3f} +- {self.error:.3f}"
        )


def signals(iterations: int, stride: int, groups: int, each: int, seed: int = 11) -> Iterator[Signal]:
    """Signal of the parts of the published demo's walk, then of ranges of times, at the start of a training.

    Args:
        iterations: independent rollouts.
        stride: of the transitions, every one of them being too dear.
        groups: per rollout.
        each: samples per group.
        seed: of the rollouts.
    """
    overrides = [
        f"dataloader.sample_group_size={groups}",
        f"dataloader.each_prompt_sample={each}",
        f"seed={seed}",
        "train.train_steps=null",
        "train.train_min_time=0",
        "train.train_max_time=1",
        "log.rdkit=false",
    ]
    config = load_config("demo_fed_grpo", overrides)
    module, _ = build_module(config)
    try:
        found, denoising = [], []
        for iteration in range(iterations):
            batch, trajectory = module.rollout(module.plan.prompts(iteration))
            _, advantages = module.compute_rewards(batch)
            found.append(_gradients(module.policy, trajectory, advantages, stride))
            denoising.append(torch.stack([_denoising(module.policy, trajectory, advantages, *ends) for ends in RANGES]))
    finally:
        module.close()
    times = torch.tensor([step.t for step in trajectory.walk if step.index in trajectory.trained[::stride]])
    gradients = torch.stack(found)  # (rollout, transition, parameter)
    for low, high in PARTS:
        chosen = (times > low) & (times <= high)
        if bool(chosen.any()):
            yield _signal("transitions", gradients[:, chosen].sum(1), low, high, int(chosen.sum()))
    for (low, high), rows in zip(RANGES, torch.stack(denoising).unbind(1), strict=True):
        yield _signal("draws", rows, low, high, DRAWS)


def _gradients(policy: DiffusionPolicy, trajectory: Trajectory, advantages: Advantages, stride: int) -> Tensor:
    """Policy gradient of every `stride`-th transition, (transitions, parameters), with balanced step weights."""
    parameters = [p for p in policy.trainable().parameters() if p.requires_grad]
    rows = []
    for index in trajectory.trained[::stride]:
        transition, start = trajectory.walk[index], 0
        objective = torch.zeros(())
        for bucket in trajectory.buckets:
            share = advantages.total[start : start + len(bucket.prompts)]
            start += len(bucket.prompts)
            step = policy.step(bucket.latents[index], bucket.mask, transition, bucket.prompts)
            log_prob = gaussian_log_prob(bucket.latents[index + 1], step.mean, step.std, bucket.mask, "sum")
            objective = objective + (log_prob * share).sum() * transition.balance / len(trajectory)
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(objective, parameters)]))
    return torch.stack(rows)


def _denoising(
    policy: DiffusionPolicy, trajectory: Trajectory, advantages: Advantages, low: float, high: float
) -> Tensor:
    """Gradient of DiffusionNFT at the policy that sampled, times in (low, high], (parameters,)."""
    options = NFTOptions(times=DRAWS, min_time=low, max_time=high, self_normalized=False, time_weighting="noise")
    objective = NFT(options, lambda *_: advantages)
    policy.follow(0.0)
    parameters = trainable_parameters(policy)
    policy.trainable().zero_grad()
    lesson = Lesson.of(replace(trajectory, trained=()), advantages, UpdateConfig(), Alone())
    accumulate(policy, lesson, objective.terms(trajectory, 0), objective, UpdateLog())
    reduce_and_clip(parameters, inf, Alone())  # where a parameter has no gradient, zeros
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def _signal(what: str, gradients: Tensor, low: float, high: float, count: int) -> Signal:
    """Lengths and cosines of the gradients (rollouts, parameters) of one part."""
    gram = (gradients @ gradients.t()).double()
    lengths = gram.diagonal().sqrt()
    rollouts = len(gram)
    cosines = gram / (lengths[:, None] * lengths)
    of_each = (cosines.sum(1) - 1) / (rollouts - 1)
    # Each pair is in the means of two rollouts, so these are about half as many independent numbers as they look.
    error = float(of_each.std() / rollouts**0.5 * 2**0.5)
    return Signal(what, low, high, count, float(gram.diagonal().mean().sqrt()), float(of_each.mean()), error)
