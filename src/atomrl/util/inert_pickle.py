"""Pickles of foreign objects, read as data: no name in them is imported, and nothing that stands in them is called.

For each class or function that a pickle names a class is made that only holds what the pickle says: with which
arguments it would be called, what state it would get, and what would be put into it. `plain_pickle.py` reads pickles
that should hold plain values alone.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterable
from typing import IO, Any, ClassVar

BUILTINS = "__builtin__"
"""What the module `builtins` is called in pickles of the older protocols, which torch.save writes."""


class ForeignNameError(pickle.UnpicklingError):
    """A pickle names what it should not need; nothing of it has run."""


class Held:
    """One object as a pickle describes it.

    Attributes:
        name: of its class or function, with the module.
        arguments: of the call that would make it, in order.
        state: what it would be restored from; None if nothing.
        entries: what would be set by key.
        items: what would be appended.
    """

    name: ClassVar[str]
    arguments: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]
    items: list[Any]

    def __new__(cls, *arguments: Any, **_: Any) -> Held:
        """Keeps the arguments; pickle makes objects by this alone, by a call or without."""
        held = object.__new__(cls)
        held.arguments, held.state, held.entries, held.items = arguments, None, {}, []
        return held

    def __init__(self, *arguments: Any, **_: Any) -> None:
        """Takes what a call brings, which `__new__` has kept."""

    def __setstate__(self, state: Any) -> None:
        """Keeps the state."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keeps an entry."""
        self.entries[key] = value

    def append(self, item: Any) -> None:
        """Keeps an item."""
        self.items.append(item)

    def extend(self, items: Iterable[Any]) -> None:
        """Keeps items."""
        self.items.extend(items)


def read_inert(
    file: IO[bytes], names: Collection[str], packages: Collection[str], referenced: Callable[[Any], Any]
) -> Any:
    """Plain values, and `Held` for all else.

    Args:
        file: the pickle.
        names: `module.name` that may stand in it.
        packages: of which any name may.
        referenced: makes the value of a reference to what lies outside of the pickle.

    Raises:
        ForeignNameError: it names something else.
        Exception: it is damaged; `plain_pickle.DAMAGED` has what that raises.
    """
    made: dict[str, type[Held]] = {}

    class Reader(pickle.Unpickler):
        """Holds what it finds."""

        def find_class(self, module: str, name: str) -> type[Held]:
            """The class that holds what is said of a name."""
            whole = f"{'builtins' if module == BUILTINS else module}.{name}"
            if whole not in names and module.partition(".")[0] not in packages:
                raise ForeignNameError(f"it asks for {whole}")
            if whole not in made:
                made[whole] = type("Held", (Held,), {"name": whole})
            return made[whole]

        def persistent_load(self, reference: Any) -> Any:
            """The value of a reference."""
            return referenced(reference)

    return Reader(file).load()
