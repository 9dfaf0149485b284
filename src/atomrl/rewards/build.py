"""Reward components out of a configuration: `{_target_: class or function, key: value, ...}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atomrl.rewards.components import CustomReward, RewardComponent, check_scaling
from atomrl.user_code.load import load_object
from atomrl.user_code.trust import TARGET, here
from atomrl.util.errors import UserError


def build_components(entries: Sequence[Any]) -> list[RewardComponent]:
    """The components of a reward.

    Args:
        entries: each `{_target_: ..., key: value}`. `_target_` names a component of this package (by its published name
            too), or code of the user's, by a dotted path or `path/to/file.py:name`: a `RewardComponent`, another class
            with `compute`, or a function f(structures) -> array. The other keys are its arguments; a value may be such
            a mapping again, of a class with `predict`.

    Raises:
        UserError: no entry, one without `_target_`, a name that is not there, or arguments that it refuses.
    """
    if not entries:
        raise UserError("reward.components is empty: name at least one, e.g. {_target_: path/to/file.py:MyReward}")
    return [_component(entry) for entry in entries]


def _component(entry: Any) -> RewardComponent:
    """One component; what is none becomes a `CustomReward` around it."""
    name, options = _parts(entry)
    found = load_object(name)
    if isinstance(found, type) and issubclass(found, RewardComponent):
        component = _made(found, name, options)
    else:
        component = _made(CustomReward, name, {"source": found, **options})
    assert isinstance(component, RewardComponent)
    check_scaling(component)
    return component


def _parts(entry: Any) -> tuple[str, dict[str, Any]]:
    """The name in `_target_`, and the arguments."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get(TARGET), str):
        raise UserError(f"reward.components: {entry!r} is no mapping with {TARGET}: a class or function")
    options = {str(key): _value(value) for key, value in entry.items() if key != TARGET}
    return here(entry[TARGET]), options


def _value(value: Any) -> Any:
    """An argument; a mapping with `_target_` becomes an object of the class that it names, which must predict."""
    if not isinstance(value, Mapping) or TARGET not in value:
        return value
    name, options = _parts(value)
    found = load_object(name)
    # A class of the user's, which may lack it: the error says so.
    if not isinstance(found, type) or not callable(getattr(found, "predict", None)):
        raise UserError(f"reward.components: {name} is no class with predict, and an argument can be of no other class")
    return _made(found, name, options)


def _made(kind: Any, name: str, options: Mapping[str, Any]) -> Any:
    """An object of this class."""
    try:
        return kind(**options)
    except TypeError as error:
        raise UserError(f"reward component {name} with {', '.join(options) or 'no arguments'}: {error}") from error
