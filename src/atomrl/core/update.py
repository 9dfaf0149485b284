"""The policy update: the objective's loss on a rollout, one gradient, one guarded step.

Nothing in here knows Lightning, a domain, an objective, or how many processes there are (see `protocols.Collective`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import ceil

import torch
from torch import Tensor
from torch.nn import Parameter

from atomrl.core.advantages import Advantages
from atomrl.core.collective import Alone
from atomrl.core.guard import Steps, guarded_step
from atomrl.core.objectives.base import Objective, Samples, Term
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.random import generator
from atomrl.core.records import Bucket, Stats, Trajectory, Transition
from atomrl.core.update_log import UpdateLog
from atomrl.util.errors import ExplodedError, NonFiniteLossError


@dataclass(frozen=True)
class UpdateConfig:
    """How to update.

    Attributes:
        epoch_per_rollout: passes over a rollout.
        train_micro_batch_size: samples per backward pass; may cut a group. None: a whole bucket.
        samples_per_step: samples per optimizer step, of all processes together, in the order of their ids; None: all of
            them, so that every step follows from the whole rollout.
        terms_per_step: terms of the loss (transitions, or draws of times) per optimizer step; None: all of them.
        num_inner_batch: in place of that, the number of optimizer steps that the terms of a pass are split into, whose
            shares differ by one term at most.
        max_grad_norm: the gradient is clipped to this norm.
        max_behaviour_kl: a step that leaves the policy further than this from the one that sampled (KL per transition,
            mean over two of them) is halved until it does not; None: no guard.
        exploded_above: a sample whose latents exceed this size, or are not finite, takes no part.
    """

    epoch_per_rollout: int = 1
    train_micro_batch_size: int | None = None
    samples_per_step: int | None = None
    terms_per_step: int | None = None
    num_inner_batch: int | None = None
    max_grad_norm: float = 1.0
    max_behaviour_kl: float | None = None
    exploded_above: float = 30.0

    def shares(self, terms: int) -> list[slice]:
        """Which of the terms of a pass each of its optimizer steps takes."""
        if self.num_inner_batch is None:
            size = self.terms_per_step or terms
            return [slice(start, start + size) for start in range(0, terms, size)]
        count = min(self.num_inner_batch, terms)
        edges = [round(terms * step / count) for step in range(count + 1)]
        return [slice(start, end) for start, end in pairwise(edges)]

    def steps(self, samples: int, terms: int) -> int:
        """Optimizer steps upon a rollout.

        Args:
            samples: of all processes.
            terms: of the loss of a pass.
        """
        shares = ceil(samples / (self.samples_per_step or samples))
        return self.epoch_per_rollout * shares * len(self.shares(terms))


def usable(trajectory: Trajectory, exploded_above: float) -> Tensor:
    """Samples whose recorded latents and log-probs are finite and whose latents did not run away, (B,) bool.

    z_0 is looked at too where no transition is trained, since then it is what teaches.
    """
    rows = []
    for bucket in trajectory.buckets:
        good = torch.ones(len(bucket), dtype=torch.bool, device=bucket.mask.device)
        for latents in (*bucket.latents.values(), *(() if trajectory.trained else (bucket.clean,))):
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

    The loss of a step is the mean over all ranks' samples and the objective's terms that belong to it. Gradients are
    accumulated locally, reduced once per optimizer step, clipped, then stepped.

    Args:
        policy: moves in place.
        trajectory: from `rollout`.
        advantages: of the trajectory's samples, in its order.
        objective: loss of a term.
        optimizer: over the policy's trainable parameters.
        config: how to update.
        collective: sums over ranks; alone if None.

    Returns:
        Means over all ranks; `masked_samples` counts the samples of all ranks that took no part.

    Raises:
        ExplodedError: on every rank, if no rank has a usable sample; nothing has been stepped.
        NonFiniteLossError: a loss is not finite; nothing has been stepped since the last good step.
    """
    collective = collective or Alone()
    lessons = Lesson.of_steps(trajectory, advantages, config, collective)
    parts = [part for lesson in lessons for part in lesson.parts]
    parameters = trainable_parameters(policy)
    log = UpdateLog()
    for epoch in range(config.epoch_per_rollout):
        terms = objective.terms(trajectory, epoch)
        for lesson, share in product(shuffled(lessons, trajectory, epoch), config.shares(len(terms))):
            block = terms[share]
            if lesson.masked == lesson.samples:
                continue  # nothing to learn from on any process: momentum alone would step
            optimizer.zero_grad()
            accumulate(policy, lesson, block, objective, log)
            norm = reduce_and_clip(parameters, config.max_grad_norm, collective)
            if not torch.isfinite(norm):
                raise _bad_gradient(float(norm), trajectory, block)
            log.add("grad_norm", norm[None])
            if config.max_behaviour_kl is None:
                optimizer.step()
            else:
                limit = config.max_behaviour_kl
                guarded_step(policy, optimizer, parameters, parts, trajectory.walk, limit, collective, log)
    return {**log.means(collective), "masked_samples": float(sum(lesson.masked for lesson in lessons))}


@dataclass(frozen=True)
class Lesson:
    """A rollout, or the samples of it that one optimizer step learns from.

    Attributes:
        parts: those of this process, cut into what one backward pass sees; it may have none.
        samples: how many all processes have.
        masked: how many of these take no part.
    """

    parts: tuple[Samples, ...]
    samples: int
    masked: int

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        advantages: Advantages,
        config: UpdateConfig,
        collective: Collective,
    ) -> Lesson:
        """All of a rollout at once; arguments and errors are those of `of_steps`."""
        (lesson,) = cls.of_steps(trajectory, advantages, replace(config, samples_per_step=None), collective)
        return lesson

    @classmethod
    def of_steps(
        cls,
        trajectory: Trajectory,
        advantages: Advantages,
        config: UpdateConfig,
        collective: Collective,
    ) -> tuple[Lesson, ...]:
        """What each optimizer step of a pass learns from; the arguments are those of `update`.

        The ids of the samples decide, so that neither the number of processes nor the buckets change how many steps
        there are, and of what. Each process has its own part of every step, or none.

        Raises:
            ExplodedError: no process has a usable sample.
        """
        active = usable(trajectory, config.exploded_above)
        ids = trajectory.sample_ids.to(active.device)
        numbers, steps = _step_numbers(ids, config.samples_per_step, collective)
        counts = torch.stack([row.bincount(minlength=steps) for row in (numbers, numbers[~active])], 1)
        totals = collective.sum(counts).tolist()
        samples, masked = map(sum, zip(*totals, strict=True))
        if masked == samples:
            raise ExplodedError(samples, trajectory.prompts.iteration, config.exploded_above)
        parts: list[list[Samples]] = [[] for _ in range(steps)]
        for step, part in _parts(trajectory, advantages, active, numbers, config.train_micro_batch_size):
            parts[step].append(part)
        return tuple(cls(tuple(own), *of_all) for own, of_all in zip(parts, totals, strict=True))


def accumulate(
    policy: DiffusionPolicy, lesson: Lesson, terms: Sequence[Term], objective: Objective, log: UpdateLog
) -> None:
    """Add the gradient of the mean loss over all samples and these terms to what the parameters hold.

    One term and micro-batch at a time, so that a rollout's graph need not fit in memory.

    Raises:
        NonFiniteLossError: the loss of a sample is not finite.
    """
    scale = 1 / (lesson.samples * len(terms))
    finite = []
    for part in lesson.parts:
        for term in terms:
            answer = objective.loss(policy, part, term)
            (answer.loss.sum() * scale).backward()
            log.add("loss", answer.loss)
            log.add_all(answer.counts, answer.largest, part.active)
            finite.append(torch.isfinite(answer.loss.detach()))
    _require_finite(finite, lesson.parts, terms)


def reduce_and_clip(parameters: Sequence[Parameter], max_norm: float, collective: Collective) -> Tensor:
    """Sum the accumulated gradients over ranks, all in one call, and clip them; the norm before the clip, ()."""
    for parameter in parameters:
        if parameter.grad is None:  # the same buffer on every rank, also where a rank had nothing to add
            parameter.grad = torch.zeros_like(parameter)
    flat = collective.sum(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def trainable_parameters(policy: DiffusionPolicy) -> list[Parameter]:
    """The parameters that an update moves."""
    return [parameter for parameter in policy.trainable().parameters() if parameter.requires_grad]


def shuffled(lessons: Sequence[Lesson], trajectory: Trajectory, epoch: int) -> list[Lesson]:
    """In an order of their own in each pass: samples are numbered by size, and the largest would always come last."""
    prompts = trajectory.prompts
    rng = generator("cpu", prompts.seed, prompts.iteration, epoch, "steps")
    return [lessons[place] for place in torch.randperm(len(lessons), generator=rng).tolist()]


def _step_numbers(ids: Tensor, size: int | None, collective: Collective) -> tuple[Tensor, int]:
    """Which optimizer step each sample of this process belongs to, (B,) int64, and how many steps there are.

    Args:
        ids: of the samples, (B,) int64.
        size: samples of a step, of all processes; None: all.
        collective: the processes.
    """
    if size is None:
        return torch.zeros_like(ids), 1
    everyone = collective.gather(ids).sort().values
    return torch.searchsorted(everyone, ids) // size, ceil(len(everyone) / size)


def _parts(
    trajectory: Trajectory, advantages: Advantages, active: Tensor, numbers: Tensor, size: int | None
) -> Iterator[tuple[int, Samples]]:
    """Cut a rollout into the pieces that one backward pass sees, each with the number of its optimizer step."""
    start = 0
    for bucket in trajectory.buckets:
        count, atoms = len(bucket), bucket.mask.shape[1]
        places = slice(start, start + count)
        here = {name: values[places, :atoms].to(bucket.mask.device) for name, values in advantages.fields.items()}
        whole = Samples(bucket, advantages[places], active[places], here, len(trajectory.walk))
        runs = numbers[places].unique_consecutive(return_counts=True)
        end = 0
        for step, length in zip(*(values.tolist() for values in runs), strict=True):
            begin, end = end, end + length
            for first in range(begin, end, size or length):
                yield step, whole[first : min(first + (size or length), end)]
        start += count


def _require_finite(finite: list[Tensor], parts: Sequence[Samples], terms: Sequence[Term]) -> None:
    """Stop at the first loss of a block that is not finite, naming the transition and the sample.

    One look per block: on a GPU each one waits for all work before it.

    Args:
        finite: for each part and, within it, each term: which samples' losses are, (B,) bool.
        parts: of the block.
        terms: its terms.
    """
    if not finite or bool(torch.cat(finite).all()):
        return
    place = next(place for place, flags in enumerate(finite) if not bool(flags.all()))
    part, term = parts[place // len(terms)], terms[place % len(terms)]
    row = int((~finite[place]).nonzero()[0])
    bucket = part.bucket
    prompts, sample = bucket.prompts, int(bucket.prompts.sample_ids[row])
    raise NonFiniteLossError(
        f"the loss of sample {sample} at {_word(term)} {term.index} of iteration {prompts.iteration} is not finite",
        {
            "iteration": prompts.iteration,
            "sample_id": sample,
            _word(term): term.index,
            "advantage": float(part.advantages.total[row]),
            **{name: values[row].cpu() for name, values in _read(bucket, term).items()},
        },
    )


def _read(bucket: Bucket, term: Term) -> dict[str, Tensor]:
    """The latents that a term reads, (B, N, D): of a transition before and after it, else z_0."""
    if not isinstance(term, Transition):
        return {"clean": bucket.clean}
    return {"latents": bucket.latents[term.index], "following": bucket.latents[term.index + 1]}


def _word(term: Term) -> str:
    """What a term is, for messages and reproducers."""
    return "transition" if isinstance(term, Transition) else "draw"


def _bad_gradient(norm: float, trajectory: Trajectory, block: Sequence[Term]) -> NonFiniteLossError:
    """Of a gradient that is not finite although all losses are: with all that went into it on this rank."""
    iteration, terms = trajectory.buckets[0].prompts.iteration, f"{_word(block[0])}s"
    return NonFiniteLossError(
        f"the gradient over {terms} {block[0].index} to {block[-1].index} of iteration {iteration} has the norm "
        f"{norm}, although each loss is finite",
        {
            "iteration": iteration,
            terms: [term.index for term in block],
            "buckets": [
                {
                    "sample_ids": bucket.prompts.sample_ids.cpu(),
                    **{
                        name: {term.index: _read(bucket, term)[name].cpu() for term in block}
                        for name in _read(bucket, block[0])
                    },
                    "log_probs": {index: values.cpu() for index, values in bucket.log_probs.items()},
                }
                for bucket in trajectory.buckets
            ],
        },
    )
