"""Objects that a Python program gives where a configuration names code: functions, classes and things made of them.

A configuration holds names. What another process can import is named as ever, `path/to/file.py:name` or
`package.module.name`. Anything else, e.g. a function of a notebook, is `<python>:name`: a name that only the program
which gives the object again can resolve.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from atomrl.util.errors import UserError

MARK = "<python>:"
"""How the name of an object begins that nothing can import."""

_GIVEN: ContextVar[Mapping[str, Any] | None] = ContextVar("given", default=None)


@contextmanager
def handed_over(objects: Mapping[str, Any]) -> Iterator[None]:
    """While entered, these names stand for these objects, whatever could be imported by them."""
    token = _GIVEN.set({**handed(), **objects})
    try:
        yield
    finally:
        _GIVEN.reset(token)


def handed() -> Mapping[str, Any]:
    """The objects that were handed over, by name."""
    return _GIVEN.get() or {}


def handed_object(name: str) -> Any:
    """The object of a name.

    Raises:
        UserError: it was not handed over.
    """
    if name not in handed():
        raise UserError(
            f"{name.removeprefix(MARK)} was an object of a Python program, which no file holds: give it again, to "
            "atomrl.resume(RUN, ...) or atomrl.Run(RUN, ...)"
        )
    return handed()[name]


def is_object(name: str) -> bool:
    """Whether a name is of an object that nothing can import."""
    return name.startswith(MARK)


def objects_in(value: Any) -> list[str]:
    """Names, anywhere in nested mappings and lists, that only a program resolves; each once, in order."""
    if isinstance(value, str):
        return [value] if is_object(value) else []
    if isinstance(value, Mapping):
        value = list(value.values())
    inside = value if isinstance(value, Sequence) else []
    return list(dict.fromkeys(name for inner in inside for name in objects_in(inner)))


class Names:
    """Gives objects their names.

    Attributes:
        objects: by name, so far.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def of(self, thing: Any) -> str:
        """The name of an object; the same one if it comes again."""
        for known, other in self.objects.items():
            if other is thing:
                return known
        name = importable_name(thing)
        if name is None:
            label = f"{MARK}{label_of(thing)}"
            names = (label, *(f"{label}_{number}" for number in range(2, len(self.objects) + 2)))
            name = next(free for free in names if free not in self.objects)
        self.objects[name] = thing
        return name


def label_of(thing: Any) -> str:
    """A name for people: of a function or class its own, else that of its class."""
    if isinstance(thing, partial):
        return label_of(thing.func)
    own = thing.__name__ if hasattr(thing, "__name__") else type(thing).__name__
    return re.sub(r"\W", "", str(own))  # a lambda is called <lambda>


def importable_name(thing: Any) -> str | None:
    """What another process finds a function or class by; None: by nothing.

    A function of `__main__`, a script or a notebook, has no such name: to import a script is to run it again.
    """
    if not isinstance(thing, type | FunctionType) or thing.__module__ == "__main__":
        return None
    place, name = thing.__module__, thing.__name__
    if place not in sys.modules or vars(sys.modules[place]).get(name) is not thing:
        return None
    module = vars(sys.modules[place])
    file = module.get("__file__")
    if file is None or "." in place or "__path__" in module:  # what a package imports of its own, a file alone cannot
        return f"{place}.{name}"
    path = Path(file).resolve()
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{name}"
