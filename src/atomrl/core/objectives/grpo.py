"""GRPO: the rewards' sum, normalised in its group or over the batch, then a clipped policy gradient.

| equation | here |
|---|---|
| A = normalised sum of channels, in its group or over the batch | `GRPO.advantages` |
| rho = exp(l_new - l_old) | `log_ratio` |
| k3 = exp(l_old - l_new) - 1 - (l_old - l_new) | `k3`: estimate of KL(behaviour policy, current policy) |
| H = -l_new | `entropy` |
| J = min(rho A, clip(rho, 1 - eps, 1 + eps) A) - beta k3 + eta H | `GRPO.step_loss`, which is -J |

The source's log-probability l is averaged over latent elements (`log_prob_reduction: mean` in rollout and update);
its small clip ranges belong to that. With `step_weighting: balanced` each log-probability difference, the entropy's
too, is multiplied by the step's std / c, so that all stages of the walk teach alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atomrl.core.advantages import Advantages, Groups
from atomrl.core.collective import Alone
from atomrl.core.normalize import CLIP_RANGE, check_normalization, normalize
from atomrl.core.objectives.base import ObjectiveSpec, StepLoss
from atomrl.core.objectives.likelihood import (
    STEP_WEIGHTINGS,
    LikelihoodObjective,
    StepTerms,
    clipped_loss,
    log_ratio,
    scored_channels,
)
from atomrl.core.protocols import Collective
from atomrl.core.records import RewardTable
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class GRPOConfig:
    """Options of GRPO.

    Attributes:
        num_group_samples: samples per prompt; the prompts come in groups of this size.
        group_reward_norm: normalise in each group; false: over the batch of all processes.
        normalize_fn: how, see `core.normalize`; None: the sum itself is the advantage.
        eps: of the normalisation.
        clip_range: of the normalisation `clip`.
        clip_ratio: eps of the ratio's clip.
        kl_weight: beta, weight of the KL to the behaviour policy.
        entropy_weight: eta, weight of the entropy.
        kl_penalty_weight: weight of the KL to the initial model; 0 leaves it out.
        channel_weights: of the reward's channels in the sum; None: each counts once.
        step_weighting: `published` or `balanced`.
    """

    num_group_samples: int = 1
    group_reward_norm: bool = False
    normalize_fn: str | None = "std"
    eps: float = 1e-4
    clip_range: tuple[float, float] = CLIP_RANGE
    clip_ratio: float = 0.001
    kl_weight: float = 1.0
    entropy_weight: float = 1e-5
    kl_penalty_weight: float = 0.0
    channel_weights: Mapping[str, float] | None = None
    step_weighting: str = "published"

    def __post_init__(self) -> None:
        """Raise UserError for values without a meaning, and keys that contradict each other."""
        check_normalization(self.normalize_fn, self.eps, self.clip_range)
        if self.num_group_samples < 1:
            raise UserError(f"num_group_samples must be at least 1, got {self.num_group_samples}")
        if self.group_reward_norm and self.num_group_samples == 1:
            raise UserError(
                "group_reward_norm=true with num_group_samples=1: a group of one has no spread to normalise by, so "
                "nothing would be learned; raise num_group_samples, or set group_reward_norm=false"
            )
        if not self.clip_ratio > 0:
            raise UserError(f"clip_ratio must be positive, got {self.clip_ratio}")
        for name, weight in (
            ("kl_weight", self.kl_weight),
            ("entropy_weight", self.entropy_weight),
            ("kl_penalty_weight", self.kl_penalty_weight),
        ):
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"{name} must be 0 or more, got {weight}")
        if self.step_weighting not in STEP_WEIGHTINGS:
            raise UserError(f"step_weighting is one of {', '.join(STEP_WEIGHTINGS)}; got {self.step_weighting!r}")


class GRPO(LikelihoodObjective[GRPOConfig]):
    """The objective; see the module's docstring."""

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """Sum the channels, then normalise the sum in its group or over the batch.

        `Advantages.channels` hold what each channel adds to the sum, before it is normalised.

        Args:
            table: channels (B,), NaN where a sample does not teach.
            group_ids: (B,).
            active: (B,) bool.
            collective: over which the batch reaches; alone if None.

        Raises:
            UserError: a weight names a channel that the reward does not give, or no channel has a weight.
        """
        config = self.config
        groups = Groups.of(group_ids) if config.group_reward_norm else Groups.whole(group_ids, collective)
        weights = dict.fromkeys(table.channels, 1.0) if config.channel_weights is None else config.channel_weights
        scored = scored_channels(table, weights, active)
        total = torch.zeros(len(table), dtype=torch.float64, device=group_ids.device)
        known = active
        shares: dict[str, Tensor] = {}
        for name, (rewards, taken) in scored.items():
            shares[name] = weights[name] * rewards
            total, known = total + shares[name], known & taken
        reward = torch.where(known, total, torch.nan)
        normalized = normalize(reward, config.normalize_fn, groups=groups, eps=config.eps, clip_range=config.clip_range)
        advantages = torch.where(known, normalized, 0.0)
        flat = (groups.sum(advantages.abs()) == 0).sum()
        everywhere = collective if config.group_reward_norm and collective else Alone()  # the batch is one group
        stats = {"zero_spread_groups": float(everywhere.sum(flat))}
        return Advantages(advantages, shares, stats)

    def step_loss(self, terms: StepTerms) -> StepLoss:
        """-J of one transition, plus the penalty for leaving the initial model, (B,)."""
        config = self.config
        difference = log_ratio(terms, config.step_weighting)
        loss, counts = clipped_loss(terms, difference, config.clip_ratio)
        k3 = torch.exp(-difference) - 1 + difference
        entropy = -terms.log_prob * (terms.balance if config.step_weighting == "balanced" else 1.0)
        loss = loss + config.kl_weight * k3 - config.entropy_weight * entropy
        counts |= {"k3": k3.detach(), "entropy": entropy.detach()}
        return self.finished(loss, terms, counts)


def _make(settings: Mapping[str, Any], channel_weights: Mapping[str, float], samples: int) -> GRPO:
    """Out of the settings of a training."""
    names = ("group_reward_norm", "kl_weight", "entropy_weight", "kl_penalty_weight", "step_weighting")
    return GRPO(
        GRPOConfig(
            num_group_samples=samples,
            normalize_fn=settings["reward_normalize_fn"],
            eps=settings["reward_eps"],
            clip_ratio=settings["clip_range"],
            channel_weights=channel_weights,
            **{name: settings[name] for name in names},
        )
    )


SPEC = ObjectiveSpec(_make, over_batch=lambda settings: not settings["group_reward_norm"])
