"""From a configuration to what is scored and kept on the way, before a sample is finished."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from atomrl.config import Config
from atomrl.core.alignment import ForceAlignment
from atomrl.core.shaping import ShapedRewards
from atomrl.core.stages import Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnTheWay:
    """What happens at places of the walk.

    Attributes:
        scored: places whose z0_pred is scored.
        aligned: those among them at which steps are aligned with forces.
        alignment: how; None: no step is.
    """

    scored: tuple[int, ...] = ()
    aligned: tuple[int, ...] = ()
    alignment: ForceAlignment | None = None

    @classmethod
    def of(cls, config: Config) -> OnTheWay:
        """As a configuration says; warns of an alignment that aligns nothing."""
        options, steps = config.reward.shaping, config.model.time_step
        asked = config.train.force_alignment
        alignment = None if asked is None else ForceAlignment(**asked)
        if not options.enabled:
            if alignment is not None:
                log.warning("train.force_alignment_enabled aligns nothing: there are no forces without reward.shaping")
            return cls()
        schedule = options.scheduler.schedule(steps)
        scored = schedule.before_end(steps)
        if alignment is None or not scored:  # the schedule itself says so where it skips all
            return cls(scored)
        pairs = zip(schedule.indices, schedule.fine, strict=True)
        aligned = tuple(place for place, fine in pairs if fine and place < steps)
        if not aligned:
            log.warning("train.force_alignment_enabled aligns nothing: the schedule has no fine places (mode=adaptive)")
        return cls(scored, aligned, alignment)


def shaping_stages(config: Config, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stage that pays each transition, if rewards are shaped.

    Args:
        config: of the run.
        stages: what a sample is worth.
    """
    options = config.reward.shaping
    if not options.enabled:
        return ()
    shaped = options.model_dump(include={"mode", "gamma", "terminal_weight", "only_energy_reshape"})
    return (ShapedRewards(config.model.time_step, tuple(stages), **shaped),)
