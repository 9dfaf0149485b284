"""Objects out of a configuration: `{_target_: class or function, key: value, ...}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atomrl.user_code.arguments import require_arguments
from atomrl.user_code.calling import calling
from atomrl.user_code.trust import TARGET, here
from atomrl.util.errors import UserError
from atomrl.util.own_frames import is_ours


def target_of(entry: Any, key: str) -> tuple[str, dict[str, Any]]:
    """The name in `_target_`, by its name in this package, and the other keys: the arguments.

    Args:
        entry: of the configuration.
        key: where it stands, for the message.

    Raises:
        UserError: it has no `_target_`.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get(TARGET), str):
        raise UserError(f"{key}: {entry!r} is no mapping with {TARGET}: a class or function")
    return here(entry[TARGET]), {str(name): value for name, value in entry.items() if name != TARGET}


def made(kind: Any, name: str, options: Mapping[str, Any], key: str) -> Any:
    """An object of a class of the user's.

    Args:
        kind: the class, or a function that makes one.
        name: as the configuration names it, for the message.
        options: its arguments.
        key: where it stands.

    Raises:
        UserError: it does not take these arguments, raises an exception, or wants to end the program.
    """
    label = f"{key}: {name}"
    require_arguments(kind, options, label)
    with calling(f"{label}({', '.join(options)})", kind):
        try:
            return kind(**options)
        except TypeError as error:
            if not is_ours(kind):
                raise
            raise UserError(f"{label} with {', '.join(options) or 'no arguments'}: {error}") from error


def require_methods(found: Any, name: str, methods: tuple[str, ...], key: str) -> None:
    """Raise UserError if an object of the user's lacks a method or attribute of its protocol."""
    if missing := [method for method in methods if not hasattr(found, method)]:
        raise UserError(f"{key}: {name} has no {' and no '.join(missing)}; it needs {', '.join(methods)}")
