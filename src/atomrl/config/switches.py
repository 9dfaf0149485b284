"""Keys that nothing reads while another key stands as it does: to type one then is a mistake, and refused.

In a YAML they may stand: there a section keeps its values while it is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser

from atomrl.config.naming import key_of
from atomrl.config.objective_keys import FORWARD
from atomrl.config.published_crystals import written
from atomrl.util.errors import UserError
from atomrl.util.options import Options


class Switch(NamedTuple):
    """What decides whether a key is read.

    Attributes:
        keys: that decide: the key is read where one of them is on.
        on: whether one of them is, by its value.
        remedy: what to set.
    """

    keys: tuple[str, ...]
    on: Callable[[Any], bool]
    remedy: str


def _is(key: str, value: Any) -> Switch:
    """A key with one value."""
    return Switch((key,), lambda found: bool(found == value), f"{key}={written(value)}")


def _positive(*keys: str, remedy: str) -> Switch:
    """Keys of which one is above 0."""
    return Switch(keys, lambda found: found > 0, remedy)


RATE = "old_decay_rate=0.001"
"""As published, for `train.nft` and the others."""

_ALIGNED = _is("train.force_alignment_enabled", True)
_DIFFERENCES = _is("reward.shaping.mode", "delta")
_AS_SHARE = _is("reward.shaping.scheduler.adaptive.threshold_timestep", None)
_FINE = _is("reward.shaping.scheduler.mode", "adaptive")
_SHAPED = _is("reward.shaping.enabled", True)
_DECAYS = _is("train.scheduler", "wsd")
_FALLS = Switch(("train.scheduler",), lambda name: name != "constant", "train.scheduler=cosine")
_COMPARES_SPREADS = Switch(
    ("train.reward_normalize_fn",), lambda name: name not in (None, "clip"), "train.reward_normalize_fn=std"
)
_HAS_ENERGY = _is("reward.use_energy", True)
_GATES = Switch(
    ("reward.force_only_if_stable", "reward.energy_only_if_stable"), bool, "reward.force_only_if_stable=true"
)
_STOPS = Switch(("early_stop_metric",), lambda metric: metric is not None, "early_stop_metric=reward")
_VALIDATES = _positive("validation.every", remedy="validation.every=10")
_EVALUATES = _positive("evaluation.samples", remedy="evaluation.samples=500")
_FOCUSES = Switch(
    ("dataloader.nodes_dist_focus_multiplier",),
    lambda multiplier: multiplier != 1,
    "dataloader.nodes_dist_focus_multiplier=3",
)

SWITCHES: Sequence[tuple[str, Switch]] = (
    ("reward.shaping", _SHAPED),
    ("reward.shaping.only_energy_reshape", _DIFFERENCES),
    ("reward.shaping.scheduler.adaptive.threshold_fraction", _AS_SHARE),
    ("reward.shaping.scheduler.uniform_stride", _is("reward.shaping.scheduler.mode", "uniform")),
    ("reward.shaping.scheduler.adaptive", _FINE),
    ("reward.energy_weight", _HAS_ENERGY),
    ("reward.energy_normalize_by_atoms", _HAS_ENERGY),
    ("reward.energy_transform_offset", _HAS_ENERGY),
    ("reward.energy_transform_scale", _HAS_ENERGY),
    ("reward.energy_transform_clip", _HAS_ENERGY),
    ("reward.gate", _GATES),
    ("filters.penalty_scale", _is("filters.enable_penalty", True)),
    ("model.return_suffix_only", _positive("model.skip_prefix", remedy="model.skip_prefix=10")),
    ("model.eta", _is("model.sampler", "ddim")),
    ("train.force_alignment_enabled", _SHAPED),
    ("train.force_alignment_enabled", _FINE),
    ("train.force_alignment_weight", _ALIGNED),
    ("train.force_alignment_min_force", _ALIGNED),
    ("train.force_alignment_min_delta", _ALIGNED),
    ("train.decay_fraction", _DECAYS),
    ("train.decay_shape", _DECAYS),
    ("train.min_lr_ratio", _FALLS),
    ("train.reward_eps", _COMPARES_SPREADS),
    *(
        (f"train.{name}.old_decay_max", _positive(f"train.{name}.old_decay_rate", remedy=f"train.{name}.{RATE}"))
        for name in FORWARD
    ),
    ("train.nft.max_time_weight", _is("train.nft.time_weighting", "clean")),
    ("dataloader.nodes_dist_focus_min", _FOCUSES),
    ("dataloader.nodes_dist_focus_max", _FOCUSES),
    ("evaluation.time_step", _EVALUATES),
    ("evaluation.seed", _EVALUATES),
    ("early_stop_mode", _STOPS),
    ("early_stop_minutes", _STOPS),
    ("early_stop_delta", _STOPS),
    ("validation.groups", _VALIDATES),
    ("validation.time_step", _VALIDATES),
    ("validation.seed", _VALIDATES),
)
"""(key, or section whose keys these are; what decides). A key that stands here twice is read where both say so."""

OF_TRAINING = (
    "model.share_initial_noise",
    "model.skip_prefix",
    "model.return_suffix_only",
    "model.lora",
    "reward.shaping",
)
"""Keys and sections of `model` and `reward` that nothing but a training reads: neither sampling nor an evaluation."""


def each_key(config: Options, overrides: Sequence[str]) -> list[str]:
    """Overrides with a typed section taken apart: `train.nft={times: 8}` is `train.nft.times=8`.

    Args:
        config: with the overrides.
        overrides: `key=value`, in the names of this package.
    """
    found = []
    for override in overrides:
        key = key_of(override)
        if _is_section(config, key):
            found += _inside(config, key, OverridesParser.create().parse_override(override).value())
        else:
            found.append(override)
    return found


def _inside(config: Options, key: str, value: Any) -> list[str]:
    """`key=value` of all that is given in a section."""
    if not isinstance(value, Mapping) or not _is_section(config, key):
        return [f"{key}={written(value)}"]
    return [word for name, inner in value.items() for word in _inside(config, f"{key}.{name}", inner)]


def _is_section(config: Options, key: str) -> bool:
    """Whether a key is a section of options; what lies in a mapping, as in `dataloader.context`, is the user's own."""
    found: Any = config
    for name in key.split("."):
        if not isinstance(found, Options):
            return False
        found = getattr(found, name)
    return isinstance(found, Options)


def require_switched_on(
    config: Options, overrides: Sequence[str], switches: Sequence[tuple[str, Switch]] = SWITCHES
) -> None:
    """Refuse overrides that would change nothing, since what they are about is switched off.

    Args:
        config: with the overrides.
        overrides: `key=value`, in the names of this package.
        switches: of these options.

    Raises:
        UserError: there is one.
    """
    for override in each_key(config, overrides):
        key = key_of(override)
        for switched, switch in switches:
            if not f"{key}.".startswith(f"{switched}.") or _at_default(config, key):
                continue
            values = {name: attrgetter(name)(config) for name in switch.keys}
            if not any(map(switch.on, values.values())):
                off = ", ".join(f"{name}={written(value)}" for name, value in values.items())
                raise UserError(f"{override} changes nothing with {off}: set {switch.remedy} too, or leave it out")


def refuse_of_training(overrides: Sequence[str], command: str) -> None:
    """Refuse overrides of a command that does not train, of what only a training reads.

    Args:
        overrides: `key=value`, in the names of this package.
        command: what does not read them, for the error.

    Raises:
        UserError: there is one.
    """
    for override in overrides:
        key = key_of(override)
        if any(f"{key}.".startswith(f"{name}.") for name in OF_TRAINING):
            raise UserError(f"{override}: {command} does not read {key}, only a training does: leave it out")


def _at_default(config: Options, key: str) -> bool:
    """Whether a key has its default."""
    section, _, name = key.rpartition(".")
    parent = attrgetter(section)(config) if section else config
    value = getattr(parent, name)
    return bool(value == type(parent).model_fields[name].get_default(call_default_factory=True))
