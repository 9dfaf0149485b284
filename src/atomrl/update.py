"""The policy update: log-probabilities of the recorded transitions, objective, one gradient, one guarded step.

Nothing in here knows Lightning, a domain, or how many processes there are (see `protocols.Collective`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from atomrl.advantages import Advantages
from atomrl.collective import Alone
from atomrl.errors import NonFiniteLossError, UserError
from atomrl.log_prob import gaussian_kl, gaussian_log_prob
from atomrl.objectives.base import Objective, StepTerms
from atomrl.protocols import Collective, DiffusionPolicy
from atomrl.records import Bucket, Stats, Trajectory, Transition

BINS = 4
"""The walk is cut into this many stages for the log."""

MAX_HALVINGS = 8
"""An optimizer step is halved less often than this; then it is taken back."""

AGAINST_EXPLOSIONS = "lower train.learning_rate, raise train.kl_penalty_weight or model.time_step"


@dataclass(frozen=True)
class UpdateConfig:
    """How to update.

    Attributes:
        epoch_per_rollout: passes over a rollout.
        train_micro_batch_size: samples per backward pass; may cut a group. None: a whole bucket.
        gradient_accumulation_steps: transitions per optimizer step; None: all of them, one step per pass.
        max_grad_norm: the gradient is clipped to this norm.
        log_prob_reduction: as in the rollout.
        max_behaviour_kl: a step that moves the policy further than this from the behaviour policy (KL per transition,
            mean over probed ones) is halved until it does not; None: no guard.
        exploded_above: a sample whose latents exceed this size, or are not finite, takes no part.
    """

    epoch_per_rollout: int = 1
    train_micro_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    max_grad_norm: float = 1.0
    log_prob_reduction: str = "sum"
    max_behaviour_kl: float | None = None
    exploded_above: float = 30.0


class Steps(Protocol):
    """What an update needs of an optimizer, or of Lightning's wrapper around one."""

    def step(self) -> object:
        """Move the parameters along their gradients."""

    def zero_grad(self) -> None:
        """Forget the gradients."""


@dataclass(frozen=True)
class Slice:
    """Some rows of a bucket, and their advantages."""

    bucket: Bucket
    rows: slice
    advantages: Tensor
    active: Tensor


@dataclass(frozen=True)
class Probe:
    """A transition whose mean is remembered, to see how far an optimizer step moved the policy."""

    part: Slice
    transition: Transition
    mean: Tensor
    std: Tensor | float


def usable(trajectory: Trajectory, exploded_above: float) -> Tensor:
    """Samples whose recorded latents and log-probs are finite and whose latents did not run away, (B,) bool."""
    rows = []
    for bucket in trajectory.buckets:
        good = torch.ones(len(bucket.prompts), dtype=torch.bool, device=bucket.mask.device)
        for latents in bucket.latents.values():
            good &= (latents.abs() <= exploded_above).all(-1).all(-1)  # False for NaN
        for log_prob in bucket.log_probs.values():
            good &= torch.isfinite(log_prob)
        rows.append(good)
    return torch.cat(rows)


def update(
    policy: DiffusionPolicy,
    trajectory: Trajectory,
    advantages: Advantages,
    objective: Objective,
    optimizer: Steps,
    config: UpdateConfig,
    collective: Collective | None = None,
) -> Stats:
    """Train the policy on a rollout.

    The loss is the mean over all ranks' samples and over the trained transitions. Gradients are accumulated locally,
    reduced once per optimizer step, clipped, then stepped.

    Args:
        policy: moves in place.
        trajectory: from `rollout`.
        advantages: of the trajectory's samples, in its order.
        objective: loss of a transition.
        optimizer: over the policy's trainable parameters.
        config: how to update.
        collective: sums over ranks; alone if None.

    Returns:
        Means over all ranks; `masked_samples` counts the samples of all ranks that took no part.

    Raises:
        UserError: on every rank, if no rank has a usable sample; nothing has been stepped.
        NonFiniteLossError: a loss is not finite; nothing has been stepped since the last good step.
    """
    collective = collective or Alone()
    active = usable(trajectory, config.exploded_above)
    counts = torch.tensor([len(active), int((~active).sum())], device=active.device)
    samples, masked = collective.sum(counts).tolist()
    if masked == samples:
        raise UserError(
            f"all {samples} samples of iteration {trajectory.prompts.iteration} exploded (latents beyond "
            f"{config.exploded_above:g}, or not finite), so that there is nothing to learn from and the run stopped; "
            f"{AGAINST_EXPLOSIONS}, and start again from earlier weights"
        )
    parameters = [p for p in policy.trainable().parameters() if p.requires_grad]
    log = _Log(len(trajectory.walk))
    parts = list(_slices(trajectory, advantages.total, active, config.train_micro_batch_size))
    for _ in range(config.epoch_per_rollout):
        for block in _blocks(trajectory.trained, config.gradient_accumulation_steps):
            optimizer.zero_grad()
            scale = 1 / (samples * len(block))
            probes = _accumulate(
                policy, parts, [trajectory.walk[index] for index in block], objective, config, scale, log
            )
            _reduce_gradients(parameters, collective)
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            if not torch.isfinite(norm):
                raise _bad_gradient(float(norm), trajectory, block)
            log.add("grad_norm", norm[None])
            _guarded_step(policy, optimizer, parameters, probes, config, collective, log)
    return {**log.means(collective), "masked_samples": float(masked)}


def _accumulate(
    policy: DiffusionPolicy,
    parts: list[Slice],
    walk: list[Transition],
    objective: Objective,
    config: UpdateConfig,
    scale: float,
    log: _Log,
) -> list[Probe]:
    """Accumulate the gradient of a block of transitions; what the guard will look at."""
    probed = () if config.max_behaviour_kl is None else _probed(tuple(transition.index for transition in walk))
    probes, finite = [], []
    for part in parts:
        for transition in walk:
            probe, loss = _backward(policy, part, transition, objective, config, scale, log)
            finite.append(torch.isfinite(loss))
            if transition.index in probed:
                probes.append(probe)
    _require_finite(finite, parts, walk)
    return probes


def _backward(
    policy: DiffusionPolicy,
    part: Slice,
    transition: Transition,
    objective: Objective,
    config: UpdateConfig,
    scale: float,
    log: _Log,
) -> tuple[Probe, Tensor]:
    """Accumulate the gradient of one transition of some samples; also the loss of each, (B,)."""
    latents, following = _latents(part, transition.index), _latents(part, transition.index + 1)
    mask, prompts = part.bucket.mask[part.rows], part.bucket.prompts[part.rows]
    old = part.bucket.log_probs[transition.index][part.rows]
    reduction = config.log_prob_reduction
    step = policy.step(latents, mask, transition, prompts)
    divergence = None
    if objective.needs_reference:
        with torch.no_grad(), policy.reference():
            initial = policy.step(latents, mask, transition, prompts)
        divergence = gaussian_kl(step.mean, step.std, initial.mean, initial.std, mask, reduction)
    log_prob = gaussian_log_prob(following, step.mean, step.std, mask, reduction)
    terms = StepTerms(log_prob, old, part.advantages, part.active, transition.balance, divergence)
    answer = objective.loss(terms)
    (answer.loss.sum() * scale).backward()
    log.step(transition, answer.loss.detach(), (log_prob - old).detach(), answer.counts, part.active)
    std = step.std.detach() if isinstance(step.std, Tensor) else step.std
    return Probe(part, transition, step.mean.detach(), std), answer.loss.detach()


def _slices(trajectory: Trajectory, advantages: Tensor, active: Tensor, size: int | None) -> Iterator[Slice]:
    """Cut a rollout into the pieces that one backward pass sees."""
    start = 0
    for bucket in trajectory.buckets:
        count = len(bucket.prompts)
        for first in range(0, count, size or count):
            rows = slice(first, min(first + (size or count), count))
            places = slice(start + rows.start, start + rows.stop)
            yield Slice(bucket, rows, advantages[places], active[places])
        start += count


def _blocks(trained: tuple[int, ...], size: int | None) -> list[tuple[int, ...]]:
    """The trained transitions, cut into those of one optimizer step."""
    size = size or len(trained)
    return [trained[start : start + size] for start in range(0, len(trained), size)]


def _probed(block: tuple[int, ...]) -> tuple[int, ...]:
    """Two transitions of a block, at a quarter and three quarters of it, that the guard looks at."""
    return block[len(block) // 4], block[3 * len(block) // 4]


def _latents(part: Slice, index: int) -> Tensor:
    """Latents (B, N, D) of a slice at a place of the walk; zeros for samples that take no part.

    An infinite latent times a gradient of zero would be NaN, so masking the loss is not enough.
    """
    return torch.where(part.active[:, None, None], part.bucket.latents[index][part.rows], 0.0)


def _require_finite(finite: list[Tensor], parts: list[Slice], walk: list[Transition]) -> None:
    """Stop at the first loss of a block that is not finite, naming the transition and the sample.

    One look per block: on a GPU each one waits for all work before it.

    Args:
        finite: for each part and, within it, each transition: which samples' losses are, (B,) bool.
        parts: of the block.
        walk: its transitions.
    """
    if bool(torch.cat(finite).all()):
        return
    place = next(place for place, flags in enumerate(finite) if not bool(flags.all()))
    part, transition = parts[place // len(walk)], walk[place % len(walk)]
    row = int((~finite[place]).nonzero()[0])
    prompts = part.bucket.prompts[part.rows]
    sample = int(prompts.sample_ids[row])
    raise NonFiniteLossError(
        f"the loss of sample {sample} at transition {transition.index} of iteration {prompts.iteration} is not finite",
        {
            "iteration": prompts.iteration,
            "sample_id": sample,
            "transition": transition.index,
            "latents": part.bucket.latents[transition.index][part.rows][row].cpu(),
            "following": part.bucket.latents[transition.index + 1][part.rows][row].cpu(),
            "advantage": float(part.advantages[row]),
        },
    )


def _bad_gradient(norm: float, trajectory: Trajectory, block: tuple[int, ...]) -> NonFiniteLossError:
    """Of a gradient that is not finite although all losses are: with all that went into it on this rank."""
    prompts = trajectory.prompts
    return NonFiniteLossError(
        f"the gradient over transitions {block[0]} to {block[-1]} of iteration {prompts.iteration} has the norm {norm}"
        ", although each loss is finite",
        {
            "iteration": prompts.iteration,
            "transitions": list(block),
            "buckets": [
                {
                    "sample_ids": bucket.prompts.sample_ids.cpu(),
                    "latents": {index: bucket.latents[index].cpu() for index in block},
                    "following": {index: bucket.latents[index + 1].cpu() for index in block},
                    "log_probs": {index: bucket.log_probs[index].cpu() for index in block},
                }
                for bucket in trajectory.buckets
            ],
        },
    )


def _reduce_gradients(parameters: list[Parameter], collective: Collective) -> None:
    """Sum the accumulated gradients over ranks, all in one call."""
    for parameter in parameters:
        if parameter.grad is None:  # the same buffer on every rank, also where a rank had nothing to add
            parameter.grad = torch.zeros_like(parameter)
    flat = collective.sum(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def _guarded_step(
    policy: DiffusionPolicy,
    optimizer: Steps,
    parameters: list[Parameter],
    probes: list[Probe],
    config: UpdateConfig,
    collective: Collective,
    log: _Log,
) -> None:
    """Step, then halve the step until the policy is near enough to the behaviour policy; at last take it back."""
    if config.max_behaviour_kl is None:
        optimizer.step()
        return
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer.step()
    halvings = 0
    moved = _behaviour_kl(policy, probes, config.log_prob_reduction, collective)
    while not moved <= config.max_behaviour_kl and halvings < MAX_HALVINGS:
        halvings += 1
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                if halvings < MAX_HALVINGS:
                    parameter.lerp_(old, 0.5)
                else:
                    parameter.copy_(old)  # interpolation would not bring back a weight that became infinite
        moved = _behaviour_kl(policy, probes, config.log_prob_reduction, collective)
    device = before[0].device  # a collective of a GPU takes no tensor of the CPU
    log.add("behaviour_kl", torch.tensor([moved], device=device))
    log.add("step_halvings", torch.tensor([float(halvings)], device=device))


def _behaviour_kl(policy: DiffusionPolicy, probes: list[Probe], reduction: str, collective: Collective) -> float:
    """Mean over samples and probed transitions of balance^2 KL(old || new).

    The factor makes all stages of the walk count alike: for a fixed std it leaves half the squared change of the
    predicted noise.
    """
    total = torch.zeros(2, dtype=torch.float64, device=probes[0].mean.device)
    with torch.no_grad():
        for probe in probes:
            part, transition = probe.part, probe.transition
            mask = part.bucket.mask[part.rows]
            step = policy.step(_latents(part, transition.index), mask, transition, part.bucket.prompts[part.rows])
            moved = gaussian_kl(probe.mean, probe.std, step.mean, step.std, mask, reduction).double()
            counted = torch.where(part.active, moved, 0.0).sum() * transition.balance**2
            total += torch.stack([counted, part.active.sum().double()])
    total = collective.sum(total)
    return float(total[0] / total[1].clamp(min=1))


class _Log:
    """Running sums of per-sample quantities; no synchronisation with the device until the end."""

    def __init__(self, transitions: int) -> None:
        self.transitions = transitions
        self.sums: dict[str, Tensor] = {}
        self.largest = torch.zeros(())

    def add(self, name: str, values: Tensor, active: Tensor | None = None) -> None:
        """Add (n,) values, or those that are active, (n,) bool, to the mean that the log will show."""
        values = values.detach().double()
        weights = torch.ones_like(values) if active is None else active.double()
        if active is not None:
            values = torch.where(active, values, 0.0)
        entry = torch.stack([values.sum(), weights.sum()])
        self.sums[name] = self.sums[name] + entry if name in self.sums else entry

    def step(
        self, transition: Transition, loss: Tensor, log_ratio: Tensor, counts: Mapping[str, Tensor], active: Tensor
    ) -> None:
        """Add one transition's losses, and the log-ratios and the objective's counts of the active samples."""
        self.add("loss", loss)
        stage = transition.index * BINS // self.transitions
        sizes = torch.where(active, log_ratio, 0.0).abs()
        self.add(f"abs_log_ratio_stage{stage}", sizes, active)
        self.largest = torch.maximum(self.largest.to(sizes.device), sizes.max())
        for name, values in counts.items():
            self.add(name, values, active)

    def means(self, collective: Collective) -> Stats:
        """Means over all ranks, and the largest absolute log-ratio of this rank."""
        totals = {name: collective.sum(entry) for name, entry in sorted(self.sums.items())}
        means = {name: float(total[0] / total[1].clamp(min=1)) for name, total in totals.items()}
        return {**means, "max_abs_log_ratio": float(self.largest)}
