"""How a published experiment of crystals is composed: of groups, `data=mp-20 paths=default`, upon `train_rl`.

Groups that the user's folder lacks come from `published_yaml`: an experiment alone can be run too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from atomrl.config.naming import key_of
from atomrl.config.published import one_by_one
from atomrl.config.published_crystals import (
    GUIDANCE,
    HUB,
    INNER,
    MODULE,
    PUBLISHED_INNER,
    SECTIONS,
    UNUSED,
    is_unused,
)
from atomrl.config.published_typed import require_meant, warn_of_typed

BASE = "train_rl"
"""YAML that experiments are composed upon."""

HERE = Path(__file__).parent / "published_yaml"
"""Where the base is that a folder may lack, and the groups: Hydra looks there after the user's folder."""

CHOICES = ("experiment", "custom_reward", "rl_module")
"""Groups whose YAML may be named as the whole configuration."""


class Composition(NamedTuple):
    """What Hydra is asked for, and what is left.

    Attributes:
        folder: that holds the YAML which all is composed upon.
        name: of that YAML.
        words: for Hydra: groups, and values under published names.
        ours: overrides for later: under the names of this package, and of what is meant only if it was typed.
    """

    folder: Path
    name: str
    words: list[str]
    ours: list[str]


def composition(name: str, overrides: Sequence[str], folder: Path | None) -> Composition | None:
    """How a published YAML is composed; None for any other one.

    Args:
        name: of the YAML in the folder.
        overrides: `key=value`.
        folder: the user's; None: the package's, which holds no published ones.
    """
    name = name.removesuffix(".yaml")
    path = None if folder is None else folder / f"{name}.yaml"
    if folder is None or path is None or not path.is_file() or not _is_published(_read(path)):
        return None
    group, _, chosen = name.partition("/")
    whole, groups = (BASE, [f"{group}={chosen}"]) if chosen and group in CHOICES else (name, [])
    base = HERE / "base" if groups and not (folder / f"{BASE}.yaml").is_file() else folder
    search = [HERE / "groups"] if base == folder else [folder.resolve(), HERE / "groups"]
    known = _groups_of(base / f"{whole}.yaml")
    # The file's number of optimizer steps is divided by it; last, since our name counts where both are given.
    inner = [word for word in overrides if key_of(word) == INNER and not word.endswith("=null")]
    overrides = [word for word in overrides if word not in inner]
    overrides += [word.replace(INNER, PUBLISHED_INNER, 1) for word in inner]
    published = [word for word in overrides if _section(word) in (*SECTIONS, *CHOICES, "hydra", HUB)]
    ours = [word for word in overrides if word not in published or key_of(word) == GUIDANCE]
    published = [leaf for word in published for leaf in one_by_one(word)]
    for word in published:
        require_meant(word)
    warn_of_typed([word for word in published if is_unused(key_of(word))], UNUSED)
    chosen_groups = [_choice(word, known) for word in (*groups, *filter(_is_group, published))]
    values = [word if word[0] in "+~" else f"++{word}" for word in published if not _is_group(word)]
    return Composition(base, whole, [_searched(search), *chosen_groups, *values], ours)


def _searched(folders: Sequence[Path]) -> str:
    """The override by which Hydra looks in more folders, in this order."""
    paths = (str(folder).replace("\\", "\\\\").replace('"', '\\"') for folder in folders)
    quoted = ",".join(f'"file://{path}"' for path in paths)
    return f"hydra.searchpath=[{quoted}]"


def _choice(word: str, known: set[str]) -> str:
    """A choice of a group as Hydra takes it: none as an empty list, and with a + if the base does not list the group.

    Hydra's own groups it always lists.
    """
    group, _, value = word.partition("=")
    word = f"{group}=[]" if value.lower() == "null" else word
    return word if word[0] in "+~" or group in known or _section(word) == "hydra" else f"+{word}"


def _groups_of(path: Path) -> set[str]:
    """Groups that a YAML's defaults list; empty if there is no such file, or no such list."""
    defaults = _read(path).get("defaults") if path.is_file() else None
    return {str(key) for entry in defaults or [] if isinstance(entry, Mapping) for key in entry}


def _is_published(tree: Mapping[str, Any]) -> bool:
    """Whether a YAML is a published one, by its keys, the class that it names or the groups that it lists."""
    entries = [entry for entry in tree.get("defaults") or [] if isinstance(entry, Mapping)]
    groups = {str(key).removeprefix("override").strip().lstrip("/") for entry in entries for key in entry}
    named = str(tree.get("_target_", "")).startswith(f"src.{MODULE}")
    return bool(SECTIONS & {*map(str, tree), *groups}) or named


def _is_group(word: str) -> bool:
    """Whether an override chooses a group, and not a value in it."""
    return "." not in word.partition("=")[0] and _section(word) not in (HUB, "task_name", "ckpt_path")


def _section(word: str) -> str:
    """The first part of an override's key."""
    return key_of(word).partition(".")[0].partition("/")[0]


def _read(path: Path) -> Mapping[str, Any]:
    """A YAML's keys; none if it is damaged, which Hydra says better."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return tree if isinstance(tree, Mapping) else {}
