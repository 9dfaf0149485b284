"""What group-relative objectives share: scores without gaps, and the clipped policy gradient of one transition."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from atomrl.advantages import Groups, fill_failed
from atomrl.errors import UserError
from atomrl.log_prob import LOG_RATIO_LIMIT
from atomrl.objectives.base import StepTerms
from atomrl.records import GATED, RewardTable

STEP_WEIGHTINGS = ("published", "balanced")
FAILED = ("worst", "mask")


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


def reference_penalty(divergence: Tensor, terms: StepTerms, step_weighting: str) -> Tensor:
    """KL(current || initial model) of the step, (B,); times balance^2 under `balanced`, as a log-ratio squared is."""
    return divergence * terms.balance**2 if step_weighting == "balanced" else divergence
