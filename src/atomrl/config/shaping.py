"""Options of shaped rewards, as `reward.shaping` holds them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from atomrl.core.reward_schedule import RewardScheduler, Schedule
from atomrl.util.options import Count, CountOrNone, Fraction, Number, Options, Weight, contradiction


class AdaptiveOptions(Options):
    """Of an adaptive schedule."""

    coarse_stride: Count = 10
    """Transitions from one scored place of the walk to the next while the timestep, T - 1 at first and 0 at last, is
    above the threshold (`threshold_fraction`)."""
    fine_stride: Count = 2
    """Transitions from one scored place of the walk to the next from the threshold on (`threshold_fraction`)."""
    threshold_fraction: Fraction = 0.25
    """Timestep at which `coarse_stride` gives way to `fine_stride`, as a share of the first one, T - 1."""
    threshold_timestep: CountOrNone | None = None
    """Timestep at which `coarse_stride` gives way to `fine_stride`; null: `threshold_fraction` says it."""


class SchedulerOptions(Options):
    """Which places of a walk are scored besides its end."""

    mode: Literal["uniform", "adaptive"] = "uniform"
    """Which places of the walk are scored: `uniform`, at equal strides, or `adaptive`, at large strides first and small
    ones towards the end."""
    skip_prefix: CountOrNone = 0
    """Transitions at the beginning of the walk that are not scored."""
    uniform_stride: Count = 1
    """For `uniform`: transitions from one scored place of the walk to the next."""
    include_terminal: bool = True
    """Whether the end of the walk is part of the schedule where the strides miss it; it is scored either way."""
    adaptive: AdaptiveOptions = AdaptiveOptions()
    """Options of `adaptive`."""

    def schedule(self, steps: int) -> Schedule:
        """The places in a walk of so many transitions."""
        chosen = self.model_dump()
        return RewardScheduler(**{**chosen.pop("adaptive"), **chosen}).schedule(steps)


class ShapingOptions(Options):
    """A reward for each transition, made of what z0_pred is worth on the way."""

    enabled: bool = False
    """Whether rewards are shaped: each transition then has a reward of its own, made of the worth of z0_pred, the clean
    sample that a step's prediction implies, at some places of the walk. Each scored place costs a scoring of every
    sample."""
    mode: Literal["delta", "pbrs_return_to_go"] = "delta"
    """What a scored place of the walk pays. `delta`: what the worth of z0_pred gains from there to the next one.
    `pbrs_return_to_go`: what the energy gains from there to the end; the force is one reward for all transitions."""
    gamma: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    """Discount of shaped rewards per transition; 1: none."""
    only_energy_reshape: bool = False
    """For `delta`: whether only the energy is shaped, and the force is paid at the last transition alone."""
    mlff_batch_size: Count = 32
    """Places of the walk whose samples go to the force field in one call."""
    terminal_weight: Weight = 1.0
    """For `delta`: weight of the finished sample's reward, and of the last transition's advantage."""
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
