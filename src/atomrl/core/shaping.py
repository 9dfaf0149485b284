"""Shaped rewards: what z0_pred is worth at some places of the walk, turned into a reward for each transition.

With F(k) the reward of the sample that z0_pred stands for at place k, and R that of the finished sample, place S:

    delta               at a scheduled k: gamma^dt F(next) - F(k), dt transitions to the next scheduled place or else to
                        the end, F(S) = R; and R times `terminal_weight` at the last transition
    pbrs_return_to_go   at a scheduled k: gamma^(S - k) R - F(k), of the energy; other channels keep their one reward

so that with gamma = 1 the differences of `delta` telescope: F(k) and all differences from k on sum to R. Between
scheduled places the reward is 0. Potential-based shaping, Ng et al. 1999; forms as published with FED-GRPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from atomrl.core.records import RewardTable
from atomrl.core.stages import SampleContext, Stage, apply_stages
from atomrl.util.errors import UserError

MODES = ("delta", "pbrs_return_to_go")
ENERGY = "energy"
"""The channel that return-to-go shapes, and `only_energy_reshape` too."""


@dataclass(frozen=True)
class ShapedRewards:
    """A stage, the last one: pays each transition.

    Attributes:
        steps: S, transitions of the walk.
        stages: between the scores of what z0_pred stands for and their worth: those of finished samples, as far as they
            say what a sample is worth.
        mode: see above.
        gamma: discount per transition.
        terminal_weight: of the finished sample's reward; `delta`.
        only_energy_reshape: `delta`: the other channels get their reward at the end alone.
    """

    steps: int
    stages: tuple[Stage, ...] = ()
    mode: Literal["delta", "pbrs_return_to_go"] = "delta"
    gamma: float = 1.0
    terminal_weight: float = 1.0
    only_energy_reshape: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for a shaping that does not exist."""
        if self.mode not in MODES:
            raise UserError(f"mode of shaped rewards is one of {', '.join(MODES)}; got {self.mode!r}")

    def __call__(self, table: RewardTable, samples: SampleContext) -> RewardTable:
        """The table with `rewards_ts`; what its potentials are worth is said by `stages`, as for finished samples.

        Raises:
            UserError: return-to-go, and there is no channel of the energy.
        """
        potentials = {
            place: apply_stages(
                self.stages, scores, replace(samples, structures=samples.estimates[place], estimates={})
            )
            for place, scores in sorted(table.potentials.items())
        }
        found = {}
        for name, reward in table.channels.items():
            before = {place: scores.channels[name] for place, scores in potentials.items()}
            if self.mode == "delta":
                found[name] = self._differences(reward, {} if self.only_energy_reshape and name != ENERGY else before)
            elif name == ENERGY:
                found[name] = self._returns(reward, before)
        if self.mode != "delta" and ENERGY not in found:
            raise UserError(f"mode={self.mode} shapes the energy, and the reward gives {', '.join(table.channels)}")
        left_out = {name: values.isnan()[:, None] for name, values in table.channels.items()}
        return replace(table, rewards_ts={n: torch.where(left_out[n], torch.nan, v) for n, v in found.items()})

    def _differences(self, reward: Tensor, before: Mapping[int, Tensor]) -> Tensor:
        """Of `delta`, (B, S)."""
        found = reward.new_zeros(len(reward), self.steps)
        for place, following in zip(before, [*before, self.steps][1:], strict=True):
            discount = self.gamma ** (following - place)
            found[:, place] = discount * before.get(following, reward) - before[place]
        found[:, -1] += self.terminal_weight * reward
        return found

    def _returns(self, reward: Tensor, before: Mapping[int, Tensor]) -> Tensor:
        """Of `pbrs_return_to_go`, (B, S)."""
        found = reward.new_zeros(len(reward), self.steps)
        for place, potential in before.items():
            found[:, place] = self.gamma ** (self.steps - place) * reward - potential
        return found
