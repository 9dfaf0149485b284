"""Inference-time steering: particles of a walk are weighed by what they are about to become, and resampled.

Each wanted sample is a group of particles of one size. At some places of the walk z0_pred is read as a structure and
scored; a particle is drawn again, inside its group, with a chance that grows with its score (Feynman-Kac steering,
Singhal et al. 2025; with `temperature` 0 the best takes all, as SVDD's best of N per step, Li et al. 2024). No weight
of the model moves. What it costs is counted: scorings and calls of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atomrl.core.advantages import Groups
from atomrl.core.normalize import group_advantages
from atomrl.core.prompts import cut_into_buckets
from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.random import key, keyed_uniforms
from atomrl.core.records import Prompts, Structures
from atomrl.core.rollout import draw
from atomrl.util.errors import UserError

Score = Callable[[Structures, Prompts], Tensor]
"""What particles are worth, (B,) float64; NaN for one that could not be scored, which is as the worst of its group."""

USUAL_PLACES = 3


@dataclass(frozen=True)
class SteeringConfig:
    """How to steer.

    Attributes:
        time_step: T, transitions of the walk.
        micro_batch_size: particles that the sampler sees at once; never splits a group.
        places: how often particles are resampled on the way: at equal distances in the second half of the walk, or, if
            it has fewer steps, at each of the last ones, so that T places are all steps. None: three, or as many as
            the second half has steps.
        temperature: a particle's chance is proportional to exp(score / temperature), scores in units of their standard
            deviation in the group; 0: the best takes all.
    """

    time_step: int = 50
    micro_batch_size: int = 64
    places: int | None = None
    temperature: float = 0.5

    def __post_init__(self) -> None:
        """Raise UserError for numbers without a meaning."""
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature={self.temperature}: must be 0 or more, and finite")
        if self.places is not None and not 0 <= self.places <= self.time_step:
            raise UserError(
                f"places={self.places}: must be 0 or more, and at most {self.time_step}, the steps of the walk"
            )

    def at(self) -> frozenset[int]:
        """Places in the walk after which particles are resampled."""
        half = self.time_step // 2
        places = min(USUAL_PLACES, self.time_step - half) if self.places is None else self.places
        start = min(half, self.time_step - places)
        return frozenset(start + (self.time_step - start) * place // (places + 1) for place in range(1, places + 1))


@dataclass(frozen=True)
class Steered:
    """What came of it.

    Attributes:
        structures: the best particle of each group, in the order of groups.
        scores: of these, (groups,) float64.
        scorings: how many structures were scored.
        network_calls: calls of the network, that of `decode` too if it makes one; each counts once per particle, and
            also a guided one once.
    """

    structures: Structures
    scores: Tensor
    scorings: int
    network_calls: int


def steer(policy: DiffusionPolicy, prompts: Prompts, config: SteeringConfig, score: Score) -> Steered:
    """Walk with resampling, then keep the best of each group.

    All draws are keyed by the particles' ids, so that what becomes of a group depends on it alone, if its scores do.

    Args:
        policy: samples; stays as it is.
        prompts: rows of a group, its particles, adjacent; on the policy's device.
        config: how to steer; with no places it is best-of-N.
        score: what particles are worth.

    Raises:
        UserError: as `require_noise`.
    """
    require_noise(policy, config)
    parts, scores = [], []
    scorings = calls = 0
    with torch.no_grad():
        for batch in cut_into_buckets(prompts, config.micro_batch_size):
            with _counted(policy.trainable()) as counted:
                structures, worth = _walk(policy, batch, config, score)
            best = Groups.of(batch.group_ids).best(worth)
            parts.append(structures[best])
            scores.append(worth[best])
            scorings += len(batch) * (1 + len(config.at()))
            calls += len(batch) * max(len(counted), config.time_step)  # who calls it by another way makes a walk's
    return Steered(Structures.concatenate(parts), torch.cat(scores), scorings, calls)


def require_noise(policy: DiffusionPolicy, config: SteeringConfig) -> None:
    """Refuse a walk that cannot be steered.

    Raises:
        UserError: none of its steps has noise, e.g. DDIM's with eta 0: what is resampled would stay copies.
    """
    if config.at() and not any(transition.trainable for transition in policy.transitions(config.time_step)):
        raise UserError(
            "steering draws samples again on the way, and in a walk without noise they would stay copies: set "
            "model.eta above 0, or take the best of N"
        )


@contextmanager
def _counted(network: nn.Module) -> Iterator[list[None]]:
    """While entered, a list grows by an entry with each call of a network."""
    counted: list[None] = []
    hook = network.register_forward_pre_hook(lambda *_: counted.append(None))
    try:
        yield counted
    finally:
        hook.remove()


def _walk(policy: DiffusionPolicy, prompts: Prompts, config: SteeringConfig, score: Score) -> tuple[Structures, Tensor]:
    """The particles of one bucket at the end of the walk, and what they are worth."""
    latents, mask = policy.prior(prompts, draw(prompts, "prior"))
    dtype, atoms = latents.dtype, latents.shape[1]
    groups, chosen = Groups.of(prompts.group_ids), config.at()
    for transition in policy.transitions(config.time_step):
        step = policy.step(latents, mask, transition, prompts)
        if transition.index in chosen:
            estimate = policy.estimate(latents, transition, step.prediction)
            worth = score(policy.read(estimate, mask, prompts), prompts).to(latents.device)
            rows = _resampled(worth, groups, config.temperature, prompts, transition.index)
            mean, std = step.mean[rows], step.std[rows] if isinstance(step.std, Tensor) else step.std
        else:
            mean, std = step.mean, step.std
        latents = mean
        if transition.trainable:
            normals = draw(prompts, "step", transition.index, dtype=dtype, atoms=atoms)(mean.shape[-1])
            latents = policy.project(mean + std * policy.noise(normals, mask), mask)
    structures = policy.decode(latents, mask, prompts, draw(prompts, "decode", dtype=dtype, atoms=atoms))
    return structures, score(structures, prompts).to(latents.device)


def _resampled(worth: Tensor, groups: Groups, temperature: float, prompts: Prompts, index: int) -> Tensor:
    """For each particle the row of its group that takes its place, (B,) int64."""
    filled = groups.filled(worth)
    filled = torch.where(filled.isfinite(), filled, 0.0)
    if temperature == 0:
        return groups.best(filled)[groups.index]
    scaled = group_advantages(filled, torch.ones_like(filled, dtype=torch.bool), groups).double()
    chance = torch.exp((scaled - groups.largest(scaled)[groups.index]) / temperature)  # 1 for the best: no overflow
    same = groups.index[:, None] == groups.index[None, :]
    chances = (same * chance[None, :]).cumsum(1)
    drawn = keyed_uniforms(prompts.sample_ids, 1, key(prompts.seed, prompts.iteration, "resample", index))
    return torch.searchsorted(chances, drawn * chances[:, -1:]).squeeze(1)
