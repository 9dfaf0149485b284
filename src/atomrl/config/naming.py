"""Which YAML the words of a command name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atomrl.util.errors import UserError

DEFAULT = "demo"

REWARDS = {"rl_dng": "mp_20/rl_dng", "rl_bandgap": "mp_20/rl_bandgap", "custom_reward": "rl_custom_reward"}
"""Experiments of the package by what published pages call their rewards, `custom_reward=rl_dng`."""

GROUPS = ("experiment", "custom_reward")


def listed_words(overrides: object) -> list[str]:
    """Overrides of a call as a list, which can be read more than once.

    Raises:
        UserError: they are no list of words: one text, a mapping, something that is read once, as a generator.
    """
    words = list(overrides) if isinstance(overrides, Sequence) and not isinstance(overrides, str | bytes) else None
    if words is None or not all(isinstance(word, str) for word in words):
        got = f"{type(overrides).__name__} {overrides!r}" if words is None else repr(words)
        raise UserError(f"overrides must be a list of key=value, e.g. ['seed=1', 'threads=2']; got {got}")
    return words


def named_yaml(words: Sequence[str], name: str | None = None, folder: Path | None = None) -> tuple[str, list[str]]:
    """The YAML's name and the other words; `experiment=prototypes/rl_dng` names `experiment/prototypes/rl_dng`.

    In a folder of the user's `custom_reward=NAME` names a YAML too, which comes upon that of `experiment=` or `name` if
    that is given as well.

    Args:
        words: `key=value`.
        name: given by --config-name; the default's is as good as none.
        folder: the user's; None: the package's YAMLs.

    Raises:
        UserError: two YAMLs of the package, or a reward that it has none for.
    """
    chosen = [word for group in GROUPS for word in words if word.startswith(f"{group}=")]
    others = [word for word in words if word not in chosen]
    if folder is not None:
        whole = name or (chosen.pop(0).replace("=", "/", 1) if chosen else DEFAULT)
        return whole, chosen + others
    if len(chosen) > 1 or (chosen and name not in (None, DEFAULT)):
        raise UserError(f"{chosen[-1]}: name one YAML only, by experiment=, custom_reward= or --config-name")
    if not chosen:
        return name or DEFAULT, others
    group, _, value = chosen[0].partition("=")
    if group == "custom_reward" and value not in REWARDS:
        raise UserError(f"{chosen[0]}: must be one of {', '.join(REWARDS)}; or give --config-dir, a folder of yours")
    return f"experiment/{REWARDS[value] if group == 'custom_reward' else value}", others


def is_named(key: str, overrides: Sequence[str]) -> bool:
    """Whether one of the overrides gives a key, a section that it is in, or something in it."""
    given = map(key_of, overrides)
    return any(f"{key}.".startswith(f"{word}.") or f"{word}.".startswith(f"{key}.") for word in given)


def key_of(override: str) -> str:
    """The key of `key=value`, without the signs that Hydra takes before it."""
    return override.partition("=")[0].lstrip("+~")
