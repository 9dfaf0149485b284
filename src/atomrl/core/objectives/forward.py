"""Objectives without log-probabilities: a finished sample teaches through the denoising loss at times of its own.

z_t = alpha_t z_0 + sigma_t eps: the sample is noised again, with noise that is keyed by (seed, iteration, sample,
draw) and nothing else. At the same z_t the current policy, the old one (which sampled) and, where it has a weight, the
initial one predict the noise. No transition of the walk is recorded; any sampler will do.

A pass over a rollout has `times` draws. The times of one sample are equally spaced over (min_time, max_time] from a
random start, and those of one draw over the batch as well, whatever processes and micro-batches the batch is cut into.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from atomrl.core.advantages import Advantages, share
from atomrl.core.log_prob import over_elements
from atomrl.core.objectives.base import ObjectiveSpec, Samples, StepLoss, Term
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.forward_options import ForwardOptions
from atomrl.core.objectives.grpo import GRPO, GRPOConfig
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.random import generator
from atomrl.core.records import Prompts, RewardTable, Trajectory
from atomrl.core.rollout import draw as keyed_draw

SMALLEST_TIME = 1e-3
"""One step of the schedules of 1000: below it a network that counts its steps from 1 has nothing to answer."""

GOLDEN = 0.6180339887498949
"""Fractional parts of its multiples fill (0, 1) evenly, however many there are."""

Compare = Callable[[RewardTable, Tensor, Tensor, Collective | None], Advantages]
"""Scores to advantages, as `Objective.advantages`."""


C = TypeVar("C", bound=ForwardOptions)


@dataclass(frozen=True)
class Draw:
    """One draw of a time and noise for each sample.

    Attributes:
        index: its number over all passes of an iteration; keys the noise.
        offset: where the times begin, in [0, 1).
    """

    index: int
    offset: float


@dataclass(frozen=True)
class Predictions:
    """What is predicted for one draw of B samples.

    Attributes:
        current: by the current policy, (B, N, D), differentiable.
        old: by the old policy, (B, N, D).
        initial: by the initial one, (B, N, D), or None if it is not read.
        target: the noise that is in z_t, (B, N, D).
        residual: mean squared error of the old policy's, (B,).
        mask: real atoms, (B, N).
        advantages: as far as they teach, between -1 and 1, (B,); 0 for a sample that takes no part.
        signal, noise: alpha_t and sigma_t, (B,).
        times: t, (B,).
    """

    current: Tensor
    old: Tensor
    initial: Tensor | None
    target: Tensor
    residual: Tensor
    mask: Tensor
    advantages: Tensor
    signal: Tensor
    noise: Tensor
    times: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the elements of the real atoms of (B, N, D) values, (B,)."""
        return over_elements(values, self.mask, "mean")


class ForwardObjective(ABC, Generic[C]):
    """Base of an objective over denoising losses of re-noised samples.

    Args:
        options: its own.
        compare: scores to advantages.
    """

    needs_walk = False

    def __init__(self, options: C, compare: Compare) -> None:
        self.options = options
        self._compare = compare

    @abstractmethod
    def draw_loss(self, predictions: Predictions) -> StepLoss:
        """Loss of one draw, (B,), without the term of the reference."""

    @property
    def needs_reference(self) -> bool:
        """Whether the distance to the initial model is part of the loss."""
        return self.options.reference_weight > 0

    def old_decay(self, iteration: int) -> float:
        """min(rate k, max)."""
        return min(self.options.old_decay_rate * iteration, self.options.old_decay_max)

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """See `Objective.advantages`; bounded by `clip_advantage`, and the log says how many are beyond."""
        found, limit = self._compare(table, group_ids, active, collective), self.options.clip_advantage
        beyond = share(found.total.abs() > limit, collective)
        return replace(
            found, total=found.total.clamp(-limit, limit), stats={**found.stats, "advantage_clip_frac": beyond}
        )

    def terms(self, trajectory: Trajectory, epoch: int) -> Sequence[Draw]:
        """The draws of a pass, each with times of its own."""
        prompts, count = trajectory.buckets[0].prompts, self.options.times
        rng = generator("cpu", prompts.seed, prompts.iteration, "times", epoch)
        start = float(torch.rand((), generator=rng, dtype=torch.float64))
        return [Draw(epoch * count + place, (start + place / count) % 1) for place in range(count)]

    def loss(self, policy: DiffusionPolicy, samples: Samples, term: Term) -> StepLoss:
        """Noise the samples again, ask the policies, then `draw_loss` and the distance to the initial model.

        Both count less for a sample whose noise the old policy does not know (`residual_bound`).
        """
        assert isinstance(term, Draw)
        found = self.predictions(policy, samples, term)
        answer = self.draw_loss(found)
        loss, counts = answer.loss, dict(answer.counts)
        moved = found.mean((found.current - found.old).detach().square())
        counts |= {"moved": moved, "residual": found.residual}
        if found.initial is not None:
            distance = found.mean((found.current - found.initial).square())
            loss = loss + self.options.reference_weight * distance
            counts["reference_distance"] = distance.detach()
        if self.options.residual_limit is not None:
            counts["over_limit"] = (found.residual > self.options.residual_limit).to(loss.dtype)
        if self.options.residual_bound is not None:
            weight = (self.options.residual_bound / found.residual).clamp(max=1)
            loss, counts["bounded"] = weight * loss, (weight < 1).to(loss.dtype)
        return StepLoss(torch.where(samples.active, loss, 0.0), counts, answer.largest)

    def predictions(self, policy: DiffusionPolicy, samples: Samples, term: Draw) -> Predictions:
        """What the policies predict for one draw."""
        options, bucket, clean = self.options, samples.bucket, samples.clean
        prompts, mask = bucket.prompts, bucket.mask
        times = self.times(prompts, term).to(clean.dtype)
        normals = keyed_draw(prompts, "forward", term.index, dtype=clean.dtype, atoms=clean.shape[1])(clean.shape[2])
        noised, target = policy.forward_noise(clean, mask, times, normals)
        current = policy.predict(noised, mask, times, prompts)
        with torch.no_grad():
            with policy.old():
                old = policy.predict(noised, mask, times, prompts)
            initial = None
            if self.needs_reference:
                with policy.reference():
                    initial = policy.predict(noised, mask, times, prompts)
        signal, noise = (level.reshape(-1).to(clean.dtype) for level in policy.levels(times))
        limit = options.clip_advantage
        advantages = (samples.advantages.total.clamp(-limit, limit) / limit).to(clean.dtype)
        residual = over_elements((old - target).square(), mask, "mean")
        if options.residual_limit is not None:
            advantages = torch.where(residual <= options.residual_limit, advantages, 0.0)
        return Predictions(current, old, initial, target, residual, mask, advantages, signal, noise, times)

    def times(self, prompts: Prompts, term: Draw) -> Tensor:
        """Time of each sample in one draw, (B,) float64."""
        options = self.options
        places = (prompts.sample_ids.double() * GOLDEN + term.offset) % 1
        return (options.max_time - (options.max_time - options.min_time) * places).clamp(min=SMALLEST_TIME)


def forward_spec(
    kind: Callable[[Any, Compare], ForwardObjective[Any]], options: type[ForwardOptions], name: str
) -> ObjectiveSpec:
    """The `SPEC` of an objective whose options are a section of the settings of a training.

    Args:
        kind: the objective.
        options: what the section holds.
        name: of the section.
    """

    def make(settings: Mapping[str, Any], channel_weights: Mapping[str, float], samples: int) -> ForwardObjective[Any]:
        own = options.read(settings[name])
        return kind(own, _comparison(settings, channel_weights, samples))

    return ObjectiveSpec(make, lambda settings: settings["advantages"] == "sum" and not settings["group_reward_norm"])


def _comparison(settings: Mapping[str, Any], channel_weights: Mapping[str, float], samples: int) -> Compare:
    """How `train.advantages` says that scores become advantages, of any size.

    `channels`: as `fed_grpo` makes them; `ranks`: the same of each channel's ranks; `sum`: as `grpo` does.
    """
    if settings["advantages"] != "sum":
        ranks = settings["advantages"] == "ranks"
        fed = FedGRPOConfig(channel_weights=channel_weights, clip_advantage_value=math.inf, ranks=ranks)
        return FedGRPO(fed).advantages
    return GRPO(
        GRPOConfig(
            num_group_samples=samples,
            group_reward_norm=settings["group_reward_norm"],
            normalize_fn=settings["reward_normalize_fn"],
            eps=settings["reward_eps"],
            channel_weights=channel_weights,
        )
    ).advantages
