"""What group-relative objectives share: scores without gaps, clipped policy gradient, KL to the initial model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from atomrl.advantages import Groups, fill_failed
from atomrl.errors import UserError
from atomrl.log_prob import LOG_RATIO_LIMIT
from atomrl.objectives.base import StepLoss, StepTerms
from atomrl.records import GATED, RewardTable

STEP_WEIGHTINGS = ("published", "balanced")
FAILED = ("worst", "mask")


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
class Anchored(Generic[C]):
    """Base of an objective whose loss may hold the KL to the initial model."""

    config: C

    @property
    def needs_reference(self) -> bool:
        """Whether a KL to the initial model is part of the loss."""
        return self.config.kl_penalty_weight > 0

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
    table: RewardTable, weights: Mapping[str, float], groups: Groups, active: Tensor, failed: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """Each weighted channel without NaN, and the samples that take part in it: {name: ((B,) float64, (B,) bool)}.

    Args:
        table: channels (B,), NaN where scoring failed.
        weights: by channel; a channel of weight 0 is left out.
        groups: of the samples, inside which a failed score counts as the worst one.
        active: (B,) bool, False for a sample whose trajectory is unusable.
        failed: `worst` or `mask`, see `fill_failed`. A score withheld on purpose (reason `gated`) is left out in both.

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
    withheld = torch.tensor([reason == GATED for reason in table.reasons], device=active.device)
    scored = {}
    for name in used:
        rewards = torch.where(active, table.channels[name].to(active.device, torch.float64), torch.nan)
        filled, known = fill_failed(rewards, groups, failed)
        scored[name] = (filled, known & active & (torch.isfinite(rewards) | ~withheld))
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
