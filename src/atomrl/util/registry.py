"""What a configuration can name: each thing is a file of its own, with a `SPEC` in it and the thing's name.

A folder may hold two kinds of things, as force fields of molecules and of crystals; then the second has another mark,
and a file with both is both. Names are found without importing anything, so that a configuration is checked at once;
adding a thing is adding a file.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from atomrl.util.errors import UserError

MARK = "SPEC"
"""How the line begins that registers a file's thing."""


@cache
def registered_names(package: str, mark: str = MARK) -> tuple[str, ...]:
    """Names of the things in a package's folder, in alphabetical order.

    Args:
        package: dotted name of the folder, e.g. `atomrl.core.objectives`.
        mark: what a file assigns that has such a thing.
    """
    sources = {path.name: path for path in files(package).iterdir() if path.name.endswith(".py")}
    return tuple(
        sorted(name.removesuffix(".py") for name, path in sources.items() if f"\n{mark} = " in path.read_text("utf-8"))
    )


def registered(package: str, name: str, key: str, mark: str = MARK) -> Any:
    """The `SPEC` of a name; its file is imported now.

    Args:
        package: as of `registered_names`.
        name: of the thing.
        key: of the configuration, for the message.
        mark: as of `registered_names`.

    Raises:
        UserError: there is no such thing.
    """
    names = registered_names(package, mark)
    if name not in names:
        raise UserError(f"{key}={name}: must be one of {', '.join(names)}")
    return getattr(import_module(f"{package}.{name}"), mark)
