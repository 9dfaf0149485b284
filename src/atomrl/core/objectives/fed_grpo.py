"""FED-GRPO: group-relative advantages per reward channel (force, energy, ...), then a clipped policy gradient.

| equation | here |
|---|---|
| A_c = (r_c - mean_group) / (std_group + 1e-8) | `group_advantages` |
| A = clamp(sum_c w_c A_c) | `FedGRPO.advantages` |
| rho = exp(log p_new - log p_old) | `ratio` |
| L = max(-A rho, -A clip(rho, 1 - eps, 1 + eps)) + beta KL(p_new, p_initial) | `FedGRPO.step_loss` |

Where rewards are shaped (`core.shaping`), a channel has a reward for each transition: each column of (B, S) is
normalised in its group, that of the last transition times `terminal_weight`, and A is a number for each transition. A
channel without such rewards gives all of them its own.

With `step_weighting: balanced`, each step's log-ratio is multiplied by std / c, where c is the factor of the
predicted noise in the step's mean. A gradient with respect to the predicted noise grows like c / std, so the last,
nearly noiseless steps would drown the others; balanced, all steps teach alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from atomrl.core.advantages import Advantages, Groups, share
from atomrl.core.alignment import ForceAlignment, forces_at
from atomrl.core.collective import Alone
from atomrl.core.normalize import group_advantages, group_ranks
from atomrl.core.objectives.base import ObjectiveSpec, Samples, StepLoss
from atomrl.core.objectives.likelihood import LikelihoodObjective, StepTerms, clipped_loss, log_ratio, scored_channels
from atomrl.core.protocols import Collective
from atomrl.core.records import RewardTable, Step, Transition


@dataclass(frozen=True)
class FedGRPOConfig:
    """Options of FED-GRPO.

    Attributes:
        channel_weights: weight of each reward channel's advantage.
        clip_advantage_value: the summed advantage is clamped to this size.
        clip_range: eps of the ratio's clip.
        kl_penalty_weight: beta, weight of the KL to the initial model; 0 leaves it out.
        step_weighting: `published` or `balanced`.
        ranks: compare the ranks of rewards in their group, not the rewards.
        terminal_weight: of the last transition's advantages, in channels whose reward is shaped.
        alignment: with forces, of transitions whose mean and forces are kept; None: none.
    """

    channel_weights: Mapping[str, float] = field(default_factory=lambda: {"force": 1.0, "energy": 0.1})
    clip_advantage_value: float = 5.0
    clip_range: float = 0.15
    kl_penalty_weight: float = 0.0
    step_weighting: str = "published"
    ranks: bool = False
    terminal_weight: float = 1.0
    alignment: ForceAlignment | None = None


class FedGRPO(LikelihoodObjective[FedGRPOConfig]):
    """The objective; see the module's docstring."""

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """Normalise each channel in its group, weigh, sum, clamp.

        Args:
            table: channels (B,), NaN where a sample does not teach.
            group_ids: (B,).
            active: (B,) bool.
            collective: for the counts of the log alone, since nothing is compared beyond a group.

        Raises:
            UserError: a weight names a channel that the reward does not give, or no channel has a weight.
        """
        groups = Groups.of(group_ids)
        limit, shaped = self.config.clip_advantage_value, table.rewards_ts
        steps = next((len(rewards.T) for rewards in shaped.values()), 1)
        total = torch.zeros(len(table), steps, dtype=torch.float64, device=group_ids.device)
        channels: dict[str, Tensor] = {}
        flat = torch.ones(groups.count, dtype=torch.bool, device=group_ids.device)
        for name, (rewards, known) in scored_channels(table, self.config.channel_weights, active).items():
            columns = self._by_transition(shaped[name], active, groups) if name in shaped else None
            compared = group_ranks(rewards, known, groups) if self.config.ranks else rewards
            found = group_advantages(compared, known, groups)[:, None] if columns is None else columns
            weighted = self.config.channel_weights[name] * found
            channels[name] = weighted.clamp(-limit, limit).mean(1)
            flat &= groups.sum(weighted.abs().sum(1)) == 0
            total = total + weighted
        stats = {
            "zero_spread_groups": float((collective or Alone()).sum(flat.sum())),
            "advantage_clip_frac": share(total.abs() > limit, collective),
        }
        clamped = total.clamp(-limit, limit)
        return Advantages(clamped.sum(1).clamp(-limit, limit), channels, stats, clamped if shaped else None)

    def _by_transition(self, rewards: Tensor, active: Tensor, groups: Groups) -> Tensor:
        """Advantages of a channel's rewards (B, S), each transition by itself; 0 where a sample has no reward."""
        rewards = rewards.to(active.device, torch.float64)
        known = rewards.isfinite() & active[:, None]
        values = torch.where(known, rewards, 0.0)
        found = torch.zeros_like(values)
        for column in values.any(0).nonzero()[:, 0].tolist():  # between scheduled places all are 0
            found[:, column] = group_advantages(values[:, column], known[:, column], groups)
        found[:, -1] *= self.config.terminal_weight
        return found

    def regulariser(self, samples: Samples, term: Transition, step: Step) -> Tensor | None:
        """Force alignment, where it is on."""
        alignment, field = self.config.alignment, forces_at(term.index)
        if alignment is None or term.index not in samples.bucket.means or field not in samples.fields:
            return None
        old_mean = torch.where(samples.active[:, None, None], samples.bucket.means[term.index], 0.0)
        return alignment.loss(step.mean, old_mean, samples.fields[field], samples.bucket.mask)

    def step_loss(self, terms: StepTerms) -> StepLoss:
        """Clipped policy loss of one transition, plus the KL penalty."""
        difference = log_ratio(terms, self.config.step_weighting)
        loss, counts = clipped_loss(terms, difference, self.config.clip_range)
        return self.finished(loss, terms, counts)


def _make(settings: Mapping[str, Any], channel_weights: Mapping[str, float], samples: int) -> FedGRPO:
    """Out of the settings of a training."""
    names = ("clip_advantage_value", "clip_range", "kl_penalty_weight", "step_weighting", "terminal_weight")
    options = {name: settings[name] for name in names}
    alignment = settings.get("force_alignment")
    return FedGRPO(FedGRPOConfig(channel_weights=channel_weights, alignment=alignment, **options))


SPEC = ObjectiveSpec(_make)
