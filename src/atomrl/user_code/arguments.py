"""Arguments of a configuration, compared with the signature of the class or function that they are for."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter
from typing import Any

from atomrl.util.errors import UserError

NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
"""Kinds of parameters that a keyword can fill."""


def require_arguments(
    kind: Callable[..., Any], given: Mapping[str, Any], label: str, handed: int = 0, further: Collection[str] = ()
) -> None:
    """Refuse a keyword that a class or function does not take, and one that is missing, without calling it.

    A class that hands `**options` on to `super().__init__` takes what that takes. What else is done with `**options`
    nobody can say beforehand, so nothing is refused then.

    Args:
        kind: the class or function.
        given: its keywords.
        label: of it, for messages, e.g. `reward.components: my_reward.py:score`.
        handed: how many arguments it gets before these, as the samples.
        further: keywords that may stand beside them and are not for it.

    Raises:
        UserError: it cannot be called, or not like this.
    """
    if not callable(kind):
        raise UserError(f"{label} is {type(kind).__name__}, no class and no function")
    found = _parameters(kind)
    if found is None:
        return
    own, takes_all = found
    named = [parameter for parameter in own[handed:] if parameter.kind in NAMED]
    names = [parameter.name for parameter in named]
    if not takes_all and (unknown := [name for name in given if name not in names]):
        known = [*names, *(name for name in further if name not in names)]
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        raise UserError(f"{label} takes no {', '.join(unknown)}{meant} it takes {', '.join(known) or 'no arguments'}")
    lacking = [part.name for part in named if part.default is Parameter.empty and part.name not in given]
    if lacking:
        raise UserError(f"{label} needs {', '.join(lacking)}, without which it cannot be called: give a value")


def takes(kind: Callable[..., Any], name: str) -> bool:
    """Whether a class or function has a parameter of this name."""
    found = _parameters(kind) if callable(kind) else None
    return found is not None and any(parameter.name == name for parameter in found[0])


def require_handed(function: Callable[..., Any], handed: Mapping[str, Any], label: str, how: str) -> None:
    """Refuse a function or method that cannot be called with what it will be handed.

    Args:
        function: to be called.
        handed: by keyword; the values do not count.
        label: of it, for messages.
        how: it is to be written.

    Raises:
        UserError: it takes something else.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function in C without a signature
        return
    try:
        signature.bind(**handed)
    except TypeError as error:
        raise UserError(f"{label}{signature} does not take what it is called with ({error}): write {how}") from error


def _parameters(kind: Callable[..., Any]) -> tuple[list[Parameter], bool] | None:
    """What a class or function takes, and whether it takes any other keyword too; None: nobody knows."""
    try:
        signature = inspect.signature(kind)
    except ValueError:  # in C, without a signature
        return None
    parameters = list(signature.parameters.values())
    if not _rest(parameters):
        return parameters, False
    if not isinstance(kind, type):
        return parameters, True
    return _along(kind)


def _along(kind: type) -> tuple[list[Parameter], bool]:
    """What a class takes that hands its `**options` on to the class it is made of, and that class perhaps likewise.

    What only the latter need is not needed here: the class may give it itself.
    """
    found: dict[str, Parameter] = {}
    further = False
    for part in kind.__mro__:
        initial = vars(part).get("__init__")
        if initial is None:
            continue
        parameters = list(inspect.signature(initial).parameters.values())[1:] if part is not object else []
        named = [one for one in parameters if one.kind in NAMED and one.name not in found]
        found |= {one.name: one.replace(default=None) if further else one for one in named}
        further = True
        rest = _rest(parameters)
        if not rest:
            return list(found.values()), False
        if not _only_hands_on(initial, rest):
            break
    return list(found.values()), True


def _rest(parameters: list[Parameter]) -> str | None:
    """Name of the parameter that takes all other keywords, if there is one."""
    return next((one.name for one in parameters if one.kind is Parameter.VAR_KEYWORD), None)


def _only_hands_on(initial: Callable[..., Any], rest: str) -> bool:
    """Whether an `__init__` does nothing with its other keywords but `super().__init__(**options)`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(initial)))
    except (OSError, TypeError, SyntaxError):
        return False
    handed = [
        part.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__"
        for part in call.keywords
        if part.arg is None
    ]
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == rest]
    return bool(uses) and all(any(node is value for value in handed) for node in uses)
