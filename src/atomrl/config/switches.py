"""Keys that nothing reads while another key stands as it does: to type one then is a mistake, and refused.

In a YAML they may stand: there a section keeps its values while it is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from atomrl.config.naming import key_of
from atomrl.config.published_crystals import written
from atomrl.config.sections import Config
from atomrl.util.errors import UserError
from atomrl.util.options import Options


class Switch(NamedTuple):
    """What decides whether a key is read.

    Attributes:
        key: that decides.
        on: whether the key with this value has it read.
        remedy: what to set.
    """

    key: str
    on: Callable[[Any], bool]
    remedy: str


def _is(key: str, value: Any) -> Switch:
    """A key with one value."""
    return Switch(key, lambda found: bool(found == value), f"{key}={written(value)}")


_ALIGNED = _is("train.force_alignment_enabled", True)
_STOPS = Switch("early_stop_metric", lambda metric: metric is not None, "early_stop_metric=reward")
_VALIDATES = Switch("validation.every", lambda every: every > 0, "validation.every=10")
_FOCUSES = Switch(
    "dataloader.nodes_dist_focus_multiplier",
    lambda multiplier: multiplier != 1,
    "dataloader.nodes_dist_focus_multiplier=3",
)

SWITCHES: Mapping[str, Switch] = {
    "reward.shaping": _is("reward.shaping.enabled", True),
    "reward.shaping.scheduler.uniform_stride": _is("reward.shaping.scheduler.mode", "uniform"),
    "reward.shaping.scheduler.adaptive": _is("reward.shaping.scheduler.mode", "adaptive"),
    "filters.penalty_scale": _is("filters.enable_penalty", True),
    "train.force_alignment_weight": _ALIGNED,
    "train.force_alignment_min_force": _ALIGNED,
    "train.force_alignment_min_delta": _ALIGNED,
    "train.decay_fraction": _is("train.scheduler", "wsd"),
    "dataloader.nodes_dist_focus_min": _FOCUSES,
    "dataloader.nodes_dist_focus_max": _FOCUSES,
    "early_stop_mode": _STOPS,
    "early_stop_minutes": _STOPS,
    "early_stop_delta": _STOPS,
    "validation.groups": _VALIDATES,
    "validation.time_step": _VALIDATES,
    "validation.seed": _VALIDATES,
}
"""{key, or section whose keys these are: what decides}."""


def require_switched_on(config: Config, overrides: Sequence[str]) -> None:
    """Refuse overrides that would change nothing, since what they are about is switched off.

    Args:
        config: with the overrides.
        overrides: `key=value`, in the names of this package.

    Raises:
        UserError: there is one.
    """
    for override in overrides:
        key = key_of(override)
        for switched, switch in SWITCHES.items():
            if not f"{key}.".startswith(f"{switched}.") or _at_default(config, key):
                continue
            value = attrgetter(switch.key)(config)
            if not switch.on(value):
                raise UserError(
                    f"{override} changes nothing with {switch.key}={written(value)}: set {switch.remedy} too, or leave "
                    "it out"
                )


def _at_default(config: Config, key: str) -> bool:
    """Whether a key has its default, or is a section, whose keys are not looked at."""
    section, _, name = key.rpartition(".")
    parent = attrgetter(section)(config) if section else config
    value = getattr(parent, name)
    return isinstance(value, Options) or value == type(parent).model_fields[name].get_default(call_default_factory=True)
