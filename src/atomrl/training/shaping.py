"""From a configuration to what is scored and kept on the way, before a sample is finished."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from atomrl.config import Config
from atomrl.core.alignment import ForceAlignment
from atomrl.core.shaping import ENERGY, ShapedRewards
from atomrl.core.stages import Stage
from atomrl.core.update import UpdateConfig
from atomrl.util.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnTheWay:
    """What happens at places of the walk.

    Attributes:
        scored: places whose z0_pred is scored.
        fine: those of them that are fine places of an adaptive schedule.
        aligned: places at which steps are aligned with forces.
        alignment: how; None: no step is.
    """

    scored: tuple[int, ...] = ()
    fine: tuple[int, ...] = ()
    aligned: tuple[int, ...] = ()
    alignment: ForceAlignment | None = None

    @classmethod
    def of(cls, config: Config) -> OnTheWay:
        """What a configuration scores; no step is aligned yet."""
        options, steps = config.reward.shaping, config.model.time_step
        if not options.enabled:
            return cls()
        schedule = options.scheduler.schedule(steps)
        pairs = zip(schedule.indices, schedule.fine, strict=True)
        return cls(schedule.before_end(steps), tuple(place for place, fine in pairs if fine and place < steps))

    def aligning(self, config: Config, trained: Collection[int], updating: UpdateConfig) -> OnTheWay:
        """With the steps that a configuration aligns; warns where it asks for that, and it would change nothing.

        Args:
            config: of the run.
            trained: transitions that it may train on.
            updating: how.
        """
        asked = config.train.force_alignment
        if asked is None or (config.reward.shaping.enabled and not self.scored):  # of that the schedule itself warns
            return self
        aligned = tuple(place for place in self.fine if place in trained)
        reason = self._why_in_vain(config, aligned, len(trained), updating)
        if reason is not None:
            log.warning("train.force_alignment_enabled aligns nothing: %s", reason)
            return self
        return replace(self, aligned=aligned, alignment=ForceAlignment(**asked))

    def _why_in_vain(
        self, config: Config, aligned: Collection[int], trained: int, updating: UpdateConfig
    ) -> str | None:
        """Why these aligned places would change nothing, if so; the arguments are as of `aligning`."""
        train, loader = config.train, config.dataloader
        if not self.scored:
            return "there are no forces without reward.shaping"
        if not self.fine:
            return "the schedule has no fine places (mode=adaptive)"
        if not aligned:
            return (
                "none of the schedule's fine places is trained on "
                f"(train.train_min_time={train.train_min_time}, train.train_max_time={train.train_max_time}, "
                f"model.skip_prefix={config.model.skip_prefix})"
            )
        terms = min(trained, train.train_steps or trained)
        samples = loader.sample_group_size * loader.each_prompt_sample
        if train.objective == "fed_grpo" and updating.steps(samples, terms) == 1:
            return (
                "an iteration has one optimizer step, at which no mean has moved yet; take several, e.g. by "
                "train.epoch_per_rollout=2 or train.num_inner_batch"
            )
        return None


def warn_of_an_unpaid_end(config: Config, trained: Collection[int]) -> None:
    """Warn where a reward is paid at the last transition of a walk, and that is not trained on.

    Args:
        config: of the run.
        trained: transitions that it may train on.
    """
    options, last = config.reward.shaping, config.model.time_step - 1
    if not options.enabled or options.mode != "delta" or last in trained:
        return
    lost = ["reward.shaping.terminal_weight changes nothing"] if options.terminal_weight != 1 else []
    if options.only_energy_reshape:
        lost.append("every channel but energy teaches nothing (reward.shaping.only_energy_reshape)")
    if lost:
        log.warning(
            "the finished sample is paid at the last transition, which is not trained on (train.train_min_time=%s; a "
            "crystal's last step has no noise): %s",
            config.train.train_min_time,
            ", and ".join(lost),
        )


def shaping_stages(config: Config, stages: Sequence[Stage], channels: Collection[str]) -> tuple[Stage, ...]:
    """The stage that pays each transition, if rewards are shaped.

    Args:
        config: of the run.
        stages: what a sample is worth.
        channels: of the reward.

    Raises:
        UserError: the energy alone is shaped, and there is no channel of it.
    """
    options = config.reward.shaping
    if not options.enabled:
        return ()
    if (options.only_energy_reshape or options.mode == "pbrs_return_to_go") and ENERGY not in channels:
        raise UserError(
            f"reward.shaping.mode={options.mode} with only_energy_reshape={str(options.only_energy_reshape).lower()} "
            f"shapes the channel energy alone, and the reward gives {', '.join(channels)}: add such a component, or "
            "choose mode=delta with only_energy_reshape=false"
        )
    shaped = options.model_dump(include={"mode", "gamma", "terminal_weight", "only_energy_reshape"})
    return (ShapedRewards(config.model.time_step, tuple(stages), **shaped),)
