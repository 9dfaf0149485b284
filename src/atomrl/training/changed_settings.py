"""What a run that is continued says of settings that differ from its own config.yaml.

Without a word on the command line a run goes on as it was. A setting that the user typed is meant: it is taken, from
the first new iteration on, and said. A setting that differs because the user left it out is refused: it would change
the run unasked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atomrl.config import Config
from atomrl.config.crystals import UNSAID
from atomrl.config.naming import is_named, key_of
from atomrl.util.errors import UserError
from atomrl.util.trees import dotted

NAMING = frozenset({"save_path", "resume", "needs"})
"""Keys that say which run it is, and nothing of what it does."""

LENGTH = frozenset(
    {
        *("dataloader.epoches", "max_time_hours", "early_stop_metric", "early_stop_mode", "early_stop_minutes"),
        *("early_stop_delta", "early_stop_patience"),
    }
)
"""How long a run trains."""

AROUND = frozenset(
    {
        *("threads", "device", "reward.workers", "reward.batch_size", "train.rank_timeout"),
        *("save_every", "evaluation", "wandb", "log"),
    }
)
"""Where a run trains, and what of it is written and judged."""


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """{key: its values before and now} of all that differ, but those of `NAMING`; a key is the whole dotted path."""
    return {key: values for key, values in _differing(old.model_dump(), new.model_dump(), "") if key not in NAMING}


def reward_settings(config: Config) -> str:
    """What makes the values of a reward comparable, as a text: its settings, but for where it is computed."""
    values = config.model_dump(mode="json", include={"reward"}, exclude_defaults=True)
    return ", ".join(f"{key}={value}" for key, value in sorted(dotted(values)) if key not in AROUND)


def said_of(old: Config, new: Config) -> str:
    """What differs, in words; empty if nothing does."""
    found = changes(old, new)
    words = [f"{key}={after}, was {before}" for key, (before, after) in found.items()]
    stretched = new.train.total_steps is None and new.train.scheduler != "constant"
    if "dataloader.epoches" in found and stretched:
        words.append(f"the learning rate follows train.scheduler={new.train.scheduler} over all of these iterations")
    return "; ".join(words)


def require_typed(place: Path, old: Config, new: Config, overrides: Sequence[str]) -> None:
    """Refuse to change what nobody typed, but for options that the run's objective does not read.

    Args:
        place: the run directory.
        old: its own configuration.
        new: that of this command.
        overrides: what was typed, `key=value` in the names of this package.

    Raises:
        UserError: with each such key.
    """
    unread = _unread(old, new)
    left_out = {key: at for key, at in changes(old, new).items() if key not in unread and not is_named(key, overrides)}
    if not left_out or old.domain != new.domain:
        return
    words = ", ".join(f"{key}={before} (here {after})" for key, (before, after) in left_out.items())
    raise UserError(
        f"resume=true, but the run in {place} has other settings, which you did not ask to change: {words}; "
        f"`atomrl resume {place}` continues it as it is; to change a setting, give it on the command line"
    )


def _unread(old: Config, new: Config) -> set[str]:
    """Keys of `train` that the objective reads neither before nor now."""
    ways = [(train.objective, train.by_channel, train.max_behaviour_kl is None) for train in (old.train, new.train)]
    if ways[0] != ways[1]:
        return set()
    return {f"train.{name}" for config in (old, new) for name in config.train.unread}


def require_lengthening(overrides: Sequence[str]) -> None:
    """Refuse words for `atomrl resume` that would make another run of it.

    Raises:
        UserError: there is one.
    """
    for override in overrides:
        key = key_of(override)
        if not any(key == free or key.startswith(f"{free}.") for free in LENGTH | AROUND):
            raise UserError(
                f"{override}: atomrl resume continues a run as it is; it takes only keys that say how long and where "
                f"it trains, and what it writes and judges: {', '.join(sorted(LENGTH | AROUND))}. For other settings: "
                "`atomrl train` with all words of the run, save_path=RUN resume=true and this one"
            )


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> list[tuple[str, tuple[Any, Any]]]:
    """Each key whose value changed, with both values."""
    found: list[tuple[str, tuple[Any, Any]]] = []
    for name in dict.fromkeys([*old, *new]):  # free mappings may have lost a key
        key, before, value = f"{prefix}{name}", old.get(name), new.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            found += _differing(before, value, f"{key}.")
        elif _meant(key, value) != _meant(key, before):
            found.append((key, (before, value)))
    return found


def _meant(key: str, value: Any) -> Any:
    """What a value says."""
    return UNSAID.get(key) if value is None else value
