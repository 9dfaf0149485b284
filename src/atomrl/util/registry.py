"""What a configuration can name: each thing is a file of its own, with a `SPEC` in it and the thing's name.

Names are found without importing anything, so that a configuration is checked at once; adding a thing is adding a file.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from atomrl.util.errors import UserError

MARK = "\nSPEC"
"""How the line begins that registers a file's thing."""


@cache
def registered_names(package: str) -> tuple[str, ...]:
    """Names of the things in a package's folder, in alphabetical order.

    Args:
        package: dotted name of the folder, e.g. `atomrl.core.objectives`.
    """
    sources = {path.name: path for path in files(package).iterdir() if path.name.endswith(".py")}
    return tuple(sorted(name.removesuffix(".py") for name, path in sources.items() if MARK in path.read_text("utf-8")))


def registered(package: str, name: str, key: str) -> Any:
    """The `SPEC` of a name; its file is imported now.

    Args:
        package: as of `registered_names`.
        name: of the thing.
        key: of the configuration, for the message.

    Raises:
        UserError: there is no such thing.
    """
    if name not in registered_names(package):
        raise UserError(f"{key}={name}: must be one of {', '.join(registered_names(package))}")
    return import_module(f"{package}.{name}").SPEC
