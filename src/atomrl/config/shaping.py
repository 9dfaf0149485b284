"""Options of shaped rewards, as `reward.shaping` holds them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from atomrl.core.reward_schedule import RewardScheduler, Schedule
from atomrl.util.options import Count, CountOrNone, Fraction, Number, Options, Weight, contradiction


class AdaptiveOptions(Options):
    """Of an adaptive schedule."""

    coarse_stride: Count = 10
    """Transitions from one scored place to the next, while the timestep is above the threshold."""
    fine_stride: Count = 2
    """The same from there on."""
    threshold_fraction: Fraction = 0.25
    """The threshold as a share of the first timestep, T - 1."""
    threshold_timestep: CountOrNone | None = None
    """Or as a timestep; null: as a share."""


class SchedulerOptions(Options):
    """Which places of a walk are scored besides its end."""

    mode: Literal["uniform", "adaptive"] = "uniform"
    """Equal strides, or large ones first and small ones towards the end."""
    skip_prefix: CountOrNone = 0
    """Transitions at the beginning of the walk that are not scored."""
    uniform_stride: Count = 1
    """Transitions from one scored place to the next."""
    include_terminal: bool = True
    """Whether the end is part of the schedule where the strides miss it. It is scored either way."""
    adaptive: AdaptiveOptions = AdaptiveOptions()
    """Of `adaptive`."""

    def schedule(self, steps: int) -> Schedule:
        """The places in a walk of so many transitions."""
        chosen = self.model_dump()
        return RewardScheduler(**{**chosen.pop("adaptive"), **chosen}).schedule(steps)


class ShapingOptions(Options):
    """A reward for each transition, made of what z0_pred is worth on the way."""

    enabled: bool = False
    """Whether rewards are shaped. Each scored place costs a scoring of every sample."""
    mode: Literal["delta", "pbrs_return_to_go"] = "delta"
    """`delta`: what the worth of z0_pred gains from one scored place to the next. `pbrs_return_to_go`: what the energy
    gains from a place to the end; the force stays one reward at the end, for all transitions."""
    gamma: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    """Discount per transition."""
    only_energy_reshape: bool = False
    """Of `delta`: the force is paid at the last transition alone."""
    mlff_batch_size: Count = 32
    """Places whose samples go to the force field in one call."""
    terminal_weight: Weight = 1.0
    """Of `delta`: of the finished sample's reward, and of the last transition's advantage."""
    scheduler: SchedulerOptions = SchedulerOptions()
    """Which places are scored."""

    @property
    def last_weight(self) -> float:
        """Of the last transition's advantage."""
        return self.terminal_weight if self.enabled else 1.0

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        """Raise UserError for an option that the mode does not read."""
        if self.enabled and self.mode != "delta" and self.terminal_weight != 1:
            raise contradiction(
                f"{{at}}mode={self.mode} has no weight of its last transition: leave {{at}}terminal_weight at 1, or "
                "choose {at}mode=delta"
            )
        return self
