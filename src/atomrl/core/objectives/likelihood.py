"""Objectives that need log-probabilities: what a step is worth to them, and the clipped policy gradient they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from atomrl.core.log_prob import LOG_RATIO_LIMIT, gaussian_kl, gaussian_log_prob
from atomrl.core.objectives.base import Samples, StepLoss, Term
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.records import Advantages, RewardTable, Step, Trajectory, Transition
from atomrl.util.errors import UserError

STEP_WEIGHTINGS = ("published", "balanced")

STAGES_OF_WALK = 4
"""The walk is cut into this many stages for the log."""


class Anchor(Protocol):
    """Options that every objective with a KL to the initial model has."""

    @property
    def kl_penalty_weight(self) -> float:
        """Weight of the KL; 0 leaves it out."""

    @property
    def step_weighting(self) -> str:
        """`published` or `balanced`."""


C = TypeVar("C", bound=Anchor)


@dataclass(frozen=True)
class StepTerms:
    """One transition of B samples, as a likelihood objective sees it.

    Attributes:
        log_prob: under the current policy, (B,), differentiable.
        old_log_prob: under the behaviour policy, (B,).
        advantages: (B,), 0 for a sample that takes no part.
        active: (B,) bool, False for samples that take no part in any term.
        balance: the transition's std / c, see `records.Transition`.
        divergence: KL(current || reference) of the step, (B,), or None if not needed.
    """

    log_prob: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    active: Tensor
    balance: float
    divergence: Tensor | None


class LikelihoodObjective(ABC, Generic[C]):
    """Base of an objective over log-probabilities of transitions, whose loss may hold the KL to the initial model.

    Args:
        config: its options.
    """

    def __init__(self, config: C) -> None:
        self.config = config

    @abstractmethod
    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """See `Objective.advantages`."""

    @abstractmethod
    def step_loss(self, terms: StepTerms) -> StepLoss:
        """Loss of one transition, (B,), out of its log-probabilities."""

    needs_walk = True

    def regulariser(self, samples: Samples, term: Transition, step: Step) -> Tensor | None:
        """What else a transition's loss has, (B,), beside its log-probabilities; None: nothing."""
        return None

    @property
    def needs_reference(self) -> bool:
        """Whether a KL to the initial model is part of the loss."""
        return self.config.kl_penalty_weight > 0

    def old_decay(self, iteration: int) -> float | None:
        """None: the current policy samples, and what it said is recorded."""
        return None

    def terms(self, trajectory: Trajectory, epoch: int) -> tuple[Transition, ...]:
        """The trained transitions, the same in each pass."""
        return tuple(trajectory.walk[index] for index in trajectory.trained)

    def loss(self, policy: DiffusionPolicy, samples: Samples, term: Term) -> StepLoss:
        """Evaluate a transition again by the current policy, then `step_loss`; log-ratios go to the log by stage."""
        assert isinstance(term, Transition)
        bucket = samples.bucket
        latents, following = samples.latents(term.index), samples.latents(term.index + 1)
        old = bucket.log_probs[term.index]
        reduction = bucket.log_prob_reduction
        step = policy.step(latents, bucket.mask, term, bucket.prompts)
        divergence = None
        if self.needs_reference:
            with torch.no_grad(), policy.reference():
                initial = policy.step(latents, bucket.mask, term, bucket.prompts)
            divergence = gaussian_kl(step.mean, step.std, initial.mean, initial.std, bucket.mask, reduction)
        log_prob = gaussian_log_prob(following, step.mean, step.std, bucket.mask, reduction)
        advantages = samples.advantages.at(term)
        answer = self.step_loss(StepTerms(log_prob, old, advantages, samples.active, term.balance, divergence))
        regulariser = self.regulariser(samples, term, step)
        loss = answer.loss if regulariser is None else answer.loss + torch.where(samples.active, regulariser, 0.0)
        sizes = torch.where(samples.active, (log_prob - old).detach(), 0.0).abs()
        stage = term.index * STAGES_OF_WALK // samples.transitions
        counts = {f"abs_log_ratio_stage{stage}": sizes, **answer.counts}
        return StepLoss(loss, counts, {**answer.largest, "max_abs_log_ratio": sizes})

    def finished(self, loss: Tensor, terms: StepTerms, counts: Mapping[str, Tensor]) -> StepLoss:
        """A loss (B,) with the KL to the initial model, times balance^2 under `balanced` as a log-ratio squared is.

        0 for inactive samples.
        """
        if terms.divergence is not None:
            balanced = self.config.step_weighting == "balanced"
            penalty = terms.divergence * terms.balance**2 if balanced else terms.divergence
            loss = loss + self.config.kl_penalty_weight * penalty
            counts = {**counts, "kl_loss": penalty.detach()}
        return StepLoss(torch.where(terms.active, loss, 0.0), counts)


def scored_channels(
    table: RewardTable, weights: Mapping[str, float], active: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Each weighted channel without NaN, and the samples that take part in it: {name: ((B,) float64, (B,) bool)}.

    Args:
        table: channels (B,) after all stages; NaN where a sample does not teach.
        weights: by channel; a channel of weight 0 is left out.
        active: (B,) bool, False for a sample whose trajectory is unusable.

    Raises:
        UserError: a weight names a channel that the reward does not give, or no channel has a weight.
    """
    used = [name for name, weight in weights.items() if weight]
    missing = sorted(set(used) - set(table.channels))
    if missing or not used:
        raise UserError(
            f"channel weights name {missing or 'no channel'}, the reward gives {sorted(table.channels)}: "
            "set the weight of an absent channel to 0, or switch the channel on in the reward"
        )
    scored = {}
    for name in used:
        values = table.channels[name].to(active.device, torch.float64)
        known = values.isfinite() & active
        scored[name] = (torch.where(known, values, 0.0), known)
    return scored


def log_ratio(terms: StepTerms, step_weighting: str) -> Tensor:
    """The step's log p_new - log p_old, (B,), clamped to plus and minus 20, its balance under `balanced`."""
    clamped = (terms.log_prob - terms.old_log_prob).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return clamped * terms.balance if step_weighting == "balanced" else clamped


def clipped_loss(terms: StepTerms, difference: Tensor, clip_range: float) -> tuple[Tensor, dict[str, Tensor]]:
    """max(-A rho, -A clip(rho, 1 - eps, 1 + eps)), (B,), and counts for the log.

    Args:
        terms: the transition.
        difference: from `log_ratio`, (B,); rho = exp(difference).
        clip_range: eps.
    """
    ratio = torch.exp(difference)
    advantages = terms.advantages.to(ratio.dtype)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    counts = {
        "clip_frac": ((ratio - 1).abs() > clip_range).to(ratio.dtype),
        "log_ratio_clamped": ((terms.log_prob - terms.old_log_prob).abs() > LOG_RATIO_LIMIT).to(ratio.dtype),
    }
    return torch.maximum(-advantages * ratio, -advantages * clipped), counts
