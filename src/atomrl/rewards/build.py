"""Reward components out of a configuration: `{_target_: class or function, key: value, ...}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atomrl.rewards.base import RewardComponent, check_scaling
from atomrl.rewards.components import CustomReward
from atomrl.user_code.load import load_object
from atomrl.user_code.targets import made, target_of
from atomrl.user_code.trust import TARGET
from atomrl.util.errors import UserError

KEY = "reward.components"


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
    name, arguments = target_of(entry, KEY)
    options, found = {key: _value(value) for key, value in arguments.items()}, load_object(name)
    if isinstance(found, type) and issubclass(found, RewardComponent):
        component = made(found, name, options, KEY)
    else:
        component = made(CustomReward, name, {"source": found, **options}, KEY)
    assert isinstance(component, RewardComponent)
    check_scaling(component)
    return component


def _value(value: Any) -> Any:
    """An argument; a mapping with `_target_` becomes an object of the class that it names, which must predict."""
    if not isinstance(value, Mapping) or TARGET not in value:
        return value
    name, options = target_of(value, KEY)
    found = load_object(name)
    # A class of the user's, which may lack it: the error says so.
    if not isinstance(found, type) or not callable(getattr(found, "predict", None)):
        raise UserError(f"reward.components: {name} is no class with predict, and an argument can be of no other class")
    return made(found, name, {key: _value(inner) for key, inner in options.items()}, KEY)
