"""Which places of a walk are scored besides its end: the schedule of shaped rewards.

A walk of S transitions has S + 1 places: place k lies before transition k, place S is the decoded sample. At place k
the sample is what z0_pred of transition k stands for. Timesteps count down, from S - 1 at place 0 to 0 at place S - 1;
place S has 0.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from atomrl.util.errors import UserError

log = logging.getLogger(__name__)

MODES = ("uniform", "adaptive")


@dataclass(frozen=True)
class Schedule:
    """Places of a walk.

    Attributes:
        indices: the places, ascending.
        intervals: transitions from each to the next; 1 for the last.
        fine: which lie where an adaptive schedule takes its small strides.
    """

    indices: tuple[int, ...]
    intervals: tuple[int, ...]
    fine: tuple[bool, ...]

    def before_end(self, steps: int) -> tuple[int, ...]:
        """The places whose z0_pred has to be scored, in a walk of so many transitions."""
        return tuple(index for index in self.indices if index < steps)


@dataclass(frozen=True)
class RewardScheduler:
    """How the places are chosen (`reward.shaping.scheduler`).

    Attributes:
        mode: `uniform`: every `uniform_stride` transitions. `adaptive`: every `coarse_stride` while the timestep is
            above the threshold, then every `fine_stride`.
        skip_prefix: places before this one are left out.
        uniform_stride, coarse_stride, fine_stride: transitions.
        threshold_fraction: the threshold as a share of the first timestep;
        threshold_timestep: or as a timestep, if given.
        include_terminal: also the end, where the strides miss it.
    """

    mode: Literal["uniform", "adaptive"] = "uniform"
    skip_prefix: int = 0
    uniform_stride: int = 1
    include_terminal: bool = True
    coarse_stride: int = 10
    fine_stride: int = 2
    threshold_fraction: float = 0.25
    threshold_timestep: int | None = None

    def __post_init__(self) -> None:
        """Raise UserError for a schedule that does not exist."""
        if self.mode not in MODES:
            raise UserError(f"mode of a reward schedule is one of {', '.join(MODES)}; got {self.mode!r}")
        strides = (self.uniform_stride, self.coarse_stride, self.fine_stride)
        if min(strides) < 1 or self.skip_prefix < 0:
            raise UserError(f"a reward schedule has strides >= 1 and skip_prefix >= 0, got {self}")

    def schedule(self, steps: int) -> Schedule:
        """The places in a walk of so many transitions; only its end, with one warning, where it skips all others."""
        start = min(self.skip_prefix, steps)
        if start == steps:
            log.warning("the reward schedule skips all %d transitions: only finished samples are scored", steps)
        limit = self.threshold_fraction * (steps - 1) if self.threshold_timestep is None else self.threshold_timestep
        indices, fine = [], []
        index = start
        while index <= steps:
            late = self.mode == "adaptive" and max(steps - 1 - index, 0) <= limit
            indices.append(index)
            fine.append(late)
            index += self.uniform_stride if self.mode == "uniform" else self.fine_stride if late else self.coarse_stride
        if self.include_terminal and indices[-1] != steps:
            indices.append(steps)
            fine.append(self.mode == "adaptive")  # its timestep is 0
        intervals = [after - before for before, after in pairwise(indices)]
        return Schedule(tuple(indices), (*intervals, 1), tuple(fine))
