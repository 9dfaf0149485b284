"""The keys of the published configurations, and what they are called here.

A YAML or an override may use them: they are renamed before anything is checked, so that messages and a run's
config.yaml say the names of this package. The tables here are those of molecules, `published_crystals.py` has those of
crystals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from atomrl.config import published_crystals as crystals
from atomrl.config.published_typed import INSTEAD, require_meant, warn_of_typed
from atomrl.util.errors import UserError

PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_./][\w./:-]*", re.IGNORECASE)
"""Text that an override has as it is; any other is in quotes."""

SCHEDULER = "train.scheduler"

ALIASES: Mapping[str, str] = {
    "train.adv_clip_max": "train.clip_advantage_value",
    "train.adam_beta1": "train.beta1",
    "train.adam_beta2": "train.beta2",
    "train.adam_weight_decay": "train.weight_decay",
    "train.adam_epsilon": "train.epsilon",
    "train.max_time_hours": "max_time_hours",
    "train.early_stop_metric": "early_stop_metric",
    "train.early_stop_mode": "early_stop_mode",
    "train.early_stop_patience_minutes": "early_stop_minutes",
    "train.early_stop_min_delta": "early_stop_delta",
    f"{SCHEDULER}.name": SCHEDULER,
    f"{SCHEDULER}.warmup_steps": "train.warmup_steps",
    f"{SCHEDULER}.total_steps": "train.total_steps",
    f"{SCHEDULER}.min_lr_ratio": "train.min_lr_ratio",
    "reward.force_adv_weight": "train.force_adv_weight",
    "reward.energy_adv_weight": "train.energy_adv_weight",
    "wandb.wandb_project": "wandb.project",
    "wandb.wandb_name": "wandb.name",
}
"""{published key: ours}."""

ONLY: Mapping[str, Any] = {
    f"{SCHEDULER}.num_cycles": 0.5,
    "filters.condition": False,
    "dataloader.geom_data_file": None,
}
"""Published keys that only their published value suits; another one is refused."""

BACKBONE, FORCE_FIELD = "model.backbone", "reward.force_field"

FILES: Mapping[str, str] = {"model.config": "args.pickle", "model.model_path": "generative_model_ema.npy"}
"""Published keys of published weights, and what their files are called: both lie in the backbone's folder."""

CHECKPOINT = "checkpoint_path"
"""Published key of the weights that a training starts from, in place of those."""

UMA = "reward.mlff_model"
"""Published key of the weights of UMA: `reward.force_field` by that name, with the option `model`."""

UNSET_IF_NULL = frozenset({"train.early_stop_patience_minutes", *FILES, CHECKPOINT})
"""Published keys whose null means what leaving them out means here."""

IGNORED = ("name", "hydra")
"""Published keys that say nothing about a run."""

DECAY_SHAPE = "train.decay_shape"

SCHEDULE, UNSCHEDULED = f"{SCHEDULER}.name", ("", "none", "null")
"""Published name of a schedule, and the values of no schedule at all, in any case."""

SCHEDULES: Mapping[str, str] = {
    **dict.fromkeys(UNSCHEDULED, "constant"),
    "constant_warmup": "constant",
    "linear_warmup": "constant",
    "cosine_warmup": "cosine",
    "warmup_stable_decay": "wsd",
    "warmup-stable-decay": "wsd",
}
"""{further published name of a schedule: ours}."""

PREFIX, OF_SHAPING = "model.skip_prefix", "reward.shaping"
"""Transitions that a group shares, and where a published file says it by how many of them are not scored."""

STABLE = f"{SCHEDULER}.stable_ratio"
"""Share of a `wsd` schedule before the rate falls: `train.decay_fraction` is the rest. Nothing else reads it."""


def renamed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of a configuration with the names of this package.

    A published experiment of crystals gets what its published base says, too.

    Raises:
        UserError: a key stands there under both names, with different values, or a value that nothing here can do.
    """
    tree = crystals.wrapped(tree)
    if not any(_is_published(key) for key, _ in _leaves(tree)):
        return dict(tree)
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    implied: dict[str, Any] = {}
    unused: list[str] = []
    leaves = dict(_leaves(crystals.without_hub(tree, _hub(tree))))
    unread = _of_no_schedule(leaves)
    for key, value in leaves.items():
        if key in unread:
            continue
        if key in RESTRICTED:
            _require_published(key, value)
        elif crystals.is_unused(key):
            unused += [] if value in ({}, None) else [key]
        elif not (_says_nothing(key, value) or (key in FILES and _given(tree, CHECKPOINT)) or _counted(key, tree)):
            crystals.require_known(key)
            name, ours = _translated(key, value)
            if name in found and found[name] != ours:
                raise UserError(f"{said[name]} and {key} are one option, and have different values: give one")
            found[name], said[name] = ours, key
            implied |= _implied(key, value)
    if FILES.keys() & leaves.keys():
        implied |= _shared_prefix(found)
    if unknown := [key for key in found if key.rpartition(".")[0] in found]:  # below what is one value here
        raise UserError(f"{unknown[0]}: no published key that is known here")
    found = {**implied, **found}
    crystals.warn_of_unused(unused)
    return _nested(crystals.completed(tree, found) if crystals.is_experiment(tree) else found)


def renamed_overrides(overrides: Sequence[str], composing: bool = True) -> list[str]:
    """Overrides with the names of this package, in their order.

    Args:
        overrides: as they were typed.
        composing: whether a configuration is made of them: what a published value implies is added, and what changes
            nothing is named in a warning. Otherwise they are what was typed, and no more.

    Raises:
        UserError: an option under two names, with different values, or a value that nothing here can do.
    """
    found: list[str] = []
    unused: list[str] = []
    backbones: dict[str, str] = {}
    said: dict[str, tuple[str, Any]] = {}
    implied: dict[str, Any] = {}
    overrides = [word for override in overrides for word in one_by_one(override)]
    hub = {key: text for key, _, text in (override.partition("=") for override in overrides)}
    hub = {key.lstrip("+").removeprefix(HUB): text for key, text in hub.items() if key.lstrip("+").startswith(HUB)}
    for override in overrides:
        key, equals, text = override.partition("=")
        bare = key.lstrip("+~")
        require_meant(override)
        prefix = key[: len(key) - len(bare)]
        text = crystals.without_hub(text, hub)
        if bare in RESTRICTED:
            written = {crystals.written(value) for value in RESTRICTED[bare].values}
            if not any(_same(form, known) for form in (text, text.lower()) for known in written):
                raise UserError(f"{override}: {_only(bare)}")
        elif bare.startswith("hydra."):
            unused.append(override)
        elif _says_nothing(bare, None if text == "null" else text) and equals:
            continue
        elif crystals.is_unused(bare):
            unused.append(override)
        elif bare in FILES or bare == CHECKPOINT:
            backbones[bare] = _translated(bare, text)[1]
        else:
            crystals.require_known(bare)
            name, ours = _translated(bare, _number(override, text) if bare == STABLE else text)
            _require_one_name(said, name, bare, ours)
            found.append(f"{prefix}{name}{equals}{_word(ours) if isinstance(ours, Mapping) else ours}")
            implied |= _implied(bare, text)
    if CHECKPOINT in backbones:
        backbones = {CHECKPOINT: backbones[CHECKPOINT]}
    if len(set(backbones.values())) > 1:
        raise UserError(f"{' and '.join(FILES)} lie in one folder, and are given in {' and '.join(backbones.values())}")
    for key, folder in backbones.items():
        _require_one_name(said, BACKBONE, key, folder)
    if composing:
        warn_of_typed(unused, crystals.UNUSED)
        found += [f"{name}={value}" for name, value in implied.items() if name not in said]
    return [*found, *(f"{BACKBONE}={folder}" for folder in set(backbones.values()))]


def one_by_one(override: str) -> list[str]:
    """A section that is typed as one word, `train.scheduler={name: wsd}`, key by key, if it holds published keys."""
    key, _, text = override.partition("=")
    bare = key.lstrip("+~")
    if not text.startswith("{") or key.startswith("~") or bare in WHOLE or not _holds_published(bare):
        return [override]
    try:
        values = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return [override]  # said by who composes
    leaves = dict(_leaves(values, f"{bare}.")) if isinstance(values, Mapping) else {}
    if not any(map(_is_published, leaves)):
        return [override]
    prefix = key[: len(key) - len(bare)]
    return [f"{prefix}{name}={_word(value)}" for name, value in leaves.items()]


def _implied(key: str, value: Any) -> dict[str, Any]:
    """What a published key with this value says of another of our keys, unless that is given.

    Its `wsd` falls by a cosine, and no schedule is no warm-up.
    """
    if key != SCHEDULE:
        return {}
    if _bare(value) in UNSCHEDULED:
        return {"train.warmup_steps": 0}
    return {DECAY_SHAPE: "cosine"} if _bare(_schedule(key, value)) == "wsd" else {}


def _of_no_schedule(leaves: Mapping[str, Any]) -> frozenset[str]:
    """Published keys of a schedule that a file says is none: they may stand there, and nothing reads them."""
    if SCHEDULE not in leaves or _bare(leaves[SCHEDULE]) not in UNSCHEDULED:
        return frozenset()
    return frozenset(
        key for key in leaves if key.startswith(f"{SCHEDULER}.") and key != SCHEDULE and _is_published(key)
    )


def _shared_prefix(found: Mapping[str, Any]) -> dict[str, Any]:
    """`model.skip_prefix` of a published file that shares noise and does not say it: the part that is not scored."""
    shaping = found.get(OF_SHAPING)
    scheduler = shaping.get("scheduler") if isinstance(shaping, Mapping) else None
    skipped = scheduler.get("skip_prefix") if isinstance(scheduler, Mapping) else None
    return {PREFIX: skipped} if skipped and found.get("model.share_initial_noise") is True else {}


def _require_one_name(said: dict[str, tuple[str, Any]], name: str, key: str, value: Any) -> None:
    """Raise UserError for an option that was given another value by another name; else note it in `said`."""
    before, other = said.get(name, (key, value))
    if before != key and not _same(other, value):
        raise UserError(f"{before} and {key} are one option, and have different values: give one")
    said[name] = key, value


def _same(one: Any, other: Any) -> bool:
    """Whether two values, or their texts, say the same."""
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return bool(one == other)


def _says_nothing(key: str, value: Any) -> bool:
    """Whether a published key with this value says nothing about a run; None is its null."""
    nothing = UNSET_IF_NULL | crystals.UNSET_IF_NULL
    return key.partition(".")[0] in (*IGNORED, crystals.HUB) or (value is None and key in nothing)


def _counted(key: str, tree: Mapping[str, Any]) -> bool:
    """Whether it is the number of optimizer steps of an experiment, which `crystals.completed` makes iterations of."""
    return key == crystals.STEPS and crystals.is_experiment(tree)


def _hub(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section that says where published models are."""
    hub = tree.get(crystals.HUB) or {}
    if not isinstance(hub, Mapping):
        raise UserError(f"{crystals.HUB}={hub}: must map names of published models to their folders")
    return hub


def _translated(key: str, value: Any) -> tuple[str, Any]:
    """Name and value of this package."""
    if key in TRANSLATED:
        name, convert = TRANSLATED[key]
        return name, convert(key, value)
    return NAMES.get(key, key), value


def _is_published(key: str) -> bool:
    """Whether a key is none of this package's."""
    published = key in (*NAMES, *RESTRICTED, *TRANSLATED) or crystals.is_unused(key)
    return published or key.partition(".")[0] in (*IGNORED, crystals.HUB)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values by their dotted key; a mapping that is itself a value, or empty, stays whole."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key not in WHOLE and isinstance(value, Mapping) and value and (not prefix or _holds_published(key)):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _holds_published(key: str) -> bool:
    """Whether published keys lie below a key."""
    return any(name.startswith(f"{key}.") for name in (*NAMES, *RESTRICTED, *TRANSLATED, *INSTEAD))


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of dotted keys."""
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return tree


def _given(tree: Mapping[str, Any], key: str) -> bool:
    """Whether a key on top has a value."""
    return tree.get(key) is not None


def _backbone(key: str, value: Any) -> str:
    """`model.backbone` of a published file: its folder; a checkpoint is one itself."""
    if not isinstance(value, str) or (key in FILES and Path(value).name != FILES[key]):
        wanted = f"the path of {FILES[key]}" if key in FILES else "the path of a checkpoint"
        raise UserError(f"{key}={value}: must be {wanted}; or give model.backbone, a folder or a checkpoint")
    return str(Path(value).parent if key in FILES else Path(value))


def _uma(key: str, model: Any) -> dict[str, str]:
    """`reward.force_field` of the name of UMA's weights."""
    if not isinstance(model, str) or not model:
        raise UserError(f"{key}={model}: must be the name of UMA's weights, e.g. uma-s-1p1; or give {FORCE_FIELD}")
    return {"_target_": "uma", "model": model}


def _bare(text: Any) -> str:
    """A name without quotes, in lower case."""
    return str(text).strip("'\"").lower()


def _schedule(_: str, name: Any) -> Any:
    """`train.scheduler` of a published name, or of its text."""
    return SCHEDULES.get(_bare(name), name)


def _decay(key: str, stable: Any) -> float:
    """`train.decay_fraction` of a published `stable_ratio`."""
    if isinstance(stable, bool) or not isinstance(stable, int | float) or not 0 <= stable <= 1:
        raise UserError(f"{key}={stable}: must be a number between 0 and 1")
    return round(1 - stable, 12)


def _number(override: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{override}: must be a number between 0 and 1") from error


def _require_published(key: str, value: Any) -> None:
    if value not in RESTRICTED[key].values:
        raise UserError(f"{key}={value}: {_only(key)}")


def _only(key: str) -> str:
    """Why another value is refused."""
    values, instead = RESTRICTED[key]
    known = f"of this published key only {' or '.join(map(crystals.written, values))} is known here"
    return f"{known if values else 'this published key is not known here'}; {instead}"


def _word(value: Any) -> str:
    """A value as an override has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_word(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_word, value)) + "]"
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return crystals.written(value)


CONVERTED: Mapping[str, tuple[str, Callable[[str, Any], Any]]] = {
    **dict.fromkeys((*FILES, CHECKPOINT), (BACKBONE, _backbone)),
    UMA: (FORCE_FIELD, _uma),
    SCHEDULE: (SCHEDULER, _schedule),
    STABLE: ("train.decay_fraction", _decay),
}
"""{published key: ours, and what makes our value of its}."""

NAMES = {**ALIASES, **crystals.ALIASES}
RESTRICTED = {**{key: crystals.Only((value,)) for key, value in ONLY.items()}, **crystals.ONLY}
TRANSLATED = {**CONVERTED, **{key: (ours, convert) for key, (ours, convert, _) in crystals.CONVERTED.items()}}
"""The same of molecules and crystals together."""

WHOLE = frozenset({"needs", crystals.HUB, *(key for key in crystals.ONLY if "." not in key)})
"""Sections that are looked at as a whole: their own keys are names or paths, or none of them is known here."""

HUB = f"{crystals.HUB}."
"""What overrides of that section begin with."""
