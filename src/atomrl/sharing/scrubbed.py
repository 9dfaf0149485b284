"""What is published of a run names no folder of the machine that it ran on, and holds no secret."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from atomrl.config import Config
from atomrl.config.outputs import WandbSection

CALL = re.compile(r"[\w.]+\(")
"""How a call in Python begins, e.g. `atomrl.train('demo')`."""

PATH = re.compile(r"(?<![\w./<~-])(?:~|\.\.|/[^\s/'\"`,;:|(){}\[\]<>=]+)(?:/[^\s/'\"`,;:|(){}\[\]<>=]+)+/?")
"""An absolute path in a text, or one that begins with ~ or .., of two parts or more."""

SECRET_KEY = re.compile(r"(api|access|private)_?key|credential|passw(or)?d|secret|(^|_)token$", re.IGNORECASE)
SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{16})|://[^/\s:@]+:[^/\s@]+@"
)
"""Tokens of services by what they begin with, and a password in an address."""
NAMED_SECRET = re.compile(
    r"""([\w.]*(?:(?:api|access|private)_?key|credential|passw(?:or)?d|secret|\btoken|_token)['"]?\s*[:=]\s*)"""
    r"""('[^']*'|"[^"]*"|[^\s,}\])'"]+)""",
    re.IGNORECASE,
)
"""`api_key: value` or `api_key=value` inside a text."""


def shared_config(config: Config) -> tuple[Config, list[str]]:
    """A run's configuration as others may see it, and the dotted keys that were left out since they hold secrets.

    Paths of this machine are cut to their last part, the run directory and the settings of Weights & Biases are gone.
    """
    tree = config.model_dump() | {"save_path": None, "resume": False, "wandb": WandbSection().model_dump()}
    secrets = [key for key, name, value in _leaves(tree, "") if _secret(name, value)]
    return type(config).read(without_paths(without_secrets(tree))), secrets


def without_secrets(tree: Any) -> Any:
    """Nested mappings and lists without entries whose key or value is that of a secret."""
    if isinstance(tree, Mapping):
        return {key: without_secrets(value) for key, value in tree.items() if not _secret(str(key), value)}
    if isinstance(tree, list):
        return [without_secrets(value) for value in tree if not _secret("", value)]
    return tree


def without_paths(tree: Any) -> Any:
    """Nested mappings and lists whose texts name no folder of this machine: of a path the last part is left.

    A relative path stays, unless it leads upwards.
    """
    if isinstance(tree, Mapping):
        return {without_paths(key): without_paths(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_paths(value) for value in tree]
    return _without_path(tree) if isinstance(tree, str) else tree


def shared_command(command: str) -> str:
    """A command line, or a call in Python, without paths of this machine and without secrets."""
    if CALL.match(command):
        return shared_text(command)
    return shlex.join(_word(word) for word in shlex.split(command))


def shared_text(text: str) -> str:
    """Running text without paths of this machine and without secrets."""
    without = PATH.sub(lambda found: PurePosixPath(found[0]).name, NAMED_SECRET.sub(r"\1***", text))
    return SECRET_VALUE.sub("***", without)


def _word(word: str) -> str:
    """A word of a command, `key=value` perhaps."""
    key, sign, value = word.partition("=")
    if sign and SECRET_KEY.search(key):
        return f"{key}=***"
    return shared_text(f"{key}={_without_path(value)}" if sign else _without_path(word))


def _without_path(text: str) -> str:
    """A text that is a path, without its folders; other texts without the paths in them."""
    path = PurePosixPath(text)
    if "\n" not in text and (path.is_absolute() or text.startswith("~") or ".." in path.parts):
        return path.name
    return PATH.sub(lambda found: PurePosixPath(found[0]).name, text)


def _secret(name: str, value: Any) -> bool:
    """Whether an entry is a secret, by its key or by its text."""
    if not isinstance(value, str):
        return False
    return bool(SECRET_VALUE.search(value)) or (bool(value) and bool(SECRET_KEY.search(name)))


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    """All values that are no mapping or list: dotted key, last key, value."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            key = f"{prefix}.{name}" if prefix else str(name)
            yield from _leaves(value, key) if isinstance(value, Mapping | list) else [(key, str(name), value)]
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            key = f"{prefix}[{place}]"
            yield from _leaves(value, key) if isinstance(value, Mapping | list) else [(key, "", value)]
