"""The bound on how far an update may move the policy from the one that sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch.nn import Parameter

from atomrl.core.log_prob import gaussian_kl
from atomrl.core.objectives.base import Samples
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.records import Transition
from atomrl.core.update_log import UpdateLog

MAX_HALVINGS = 8
"""An optimizer step is halved less often than this; then it is taken back."""


class Steps(Protocol):
    """What an update needs of an optimizer, or of Lightning's wrapper around one."""

    def step(self) -> object:
        """Move the parameters along their gradients."""

    def zero_grad(self) -> None:
        """Forget the gradients."""


def guarded_step(
    policy: DiffusionPolicy,
    optimizer: Steps,
    parameters: Sequence[Parameter],
    samples: Sequence[Samples],
    walk: Sequence[Transition],
    limit: float,
    collective: Collective,
    log: UpdateLog,
) -> None:
    """Step, then halve the step until the policy is near enough to the one that sampled; at last take it back.

    Halving moves the parameters back along the step. The optimizer's state stays: Adam's moments are averages of
    gradients, which were what they were, however much of the step is kept.

    Args:
        policy: moves in place.
        optimizer: steps.
        parameters: of the policy that it moves.
        samples: all of this process.
        walk: of their trajectories.
        limit: of `behaviour_kl`.
        collective: over which the distance is a mean, so that all processes halve alike.
        log: gets `behaviour_kl` and `step_halvings`.
    """
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer.step()
    halvings = 0
    moved = behaviour_kl(policy, samples, walk, collective)
    while not moved <= limit and halvings < MAX_HALVINGS:
        halvings += 1
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                if halvings < MAX_HALVINGS:
                    parameter.lerp_(old, 0.5)
                else:
                    parameter.copy_(old)  # interpolation would not bring back a weight that became infinite
        moved = behaviour_kl(policy, samples, walk, collective)
    device = before[0].device  # a collective of a GPU takes no tensor of the CPU
    log.add("behaviour_kl", torch.tensor([moved], device=device))
    log.add("step_halvings", torch.tensor([float(halvings)], device=device))


def behaviour_kl(
    policy: DiffusionPolicy, samples: Sequence[Samples], walk: Sequence[Transition], collective: Collective
) -> float:
    """Mean over samples and the transitions of `Bucket.behaviour` of balance^2 KL(policy that sampled || policy now).

    The factor makes all stages of the walk count alike: for a fixed std it leaves half the squared change of the
    predicted noise.
    """
    total = torch.zeros(2, dtype=torch.float64, device=samples[0].active.device)
    with torch.no_grad():
        for part in samples:
            bucket = part.bucket
            for index, old in sorted(bucket.behaviour.items()):
                step = policy.step(part.latents(index), bucket.mask, walk[index], bucket.prompts)
                moved = gaussian_kl(old.mean, old.std, step.mean, step.std, bucket.mask, bucket.log_prob_reduction)
                counted = torch.where(part.active, moved.double(), 0.0).sum() * walk[index].balance ** 2
                total += torch.stack([counted, part.active.sum().double()])
    total = collective.sum(total)
    return float(total[0] / total[1].clamp(min=1))
