"""Reward components out of a configuration: `{_target_: class or function, key: value, ...}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from atomrl.core.normalize import require_number
from atomrl.rewards.base import SCALING, RewardComponent, check_component
from atomrl.rewards.components import CustomReward, is_custom
from atomrl.user_code.arguments import require_arguments, takes
from atomrl.user_code.load import load_object
from atomrl.user_code.targets import made, target_of
from atomrl.user_code.trust import REWARD_TYPES, TARGET
from atomrl.util.errors import UserError

KEY = "reward.components"


def build_components(entries: Sequence[Any]) -> list[RewardComponent]:
    """The components of a reward.

    Args:
        entries: each `{_target_: ..., key: value}`. `_target_` names a component of this package (by its published name
            too), or code of the user's, by a dotted path or `path/to/file.py:name`: a `RewardComponent`, another class
            with `compute`, or a function f(structures) -> array. The other keys are its arguments; a value may be such
            a mapping again, of a class with `predict`. It may also name an object that was handed over: a component
            is taken as it is, but for another `weight`.

    Raises:
        UserError: no entry, one without `_target_`, a name that is not there, or arguments that it refuses.
    """
    if not entries:
        raise UserError("reward.components is empty: name at least one, e.g. {_target_: path/to/file.py:MyReward}")
    return [_component(entry) for entry in entries]


def check_components(entries: Sequence[Any]) -> None:
    """Import the code that entries name, and compare their arguments with its signatures; nothing is made.

    Args:
        entries: as of `build_components`, or names of the package's own rewards, whose options stand elsewhere.

    Raises:
        UserError: as `build_components`, as far as signatures say.
    """
    for entry in entries:
        if not isinstance(entry, Mapping) or entry.get(TARGET) not in REWARD_TYPES:
            _named(entry)
        elif given := [str(name) for name in entry if name != TARGET]:
            raise UserError(f"{KEY}: {entry[TARGET]} takes no {', '.join(given)}: its options are keys of `reward`")


def _component(entry: Any) -> RewardComponent:
    """One component; what is none becomes a `CustomReward` around it."""
    found, name, arguments = _named(entry)
    options = {key: _value(value) for key, value in arguments.items()}
    if isinstance(found, RewardComponent):
        component: Any = _weighed(found, name, options)
    elif _is_component(found):
        component = made(found, name, options, KEY)
    else:
        component = made(CustomReward, name, {"source": found, **options}, KEY)
    assert isinstance(component, RewardComponent)
    check_component(component)
    return component


def _weighed(component: RewardComponent, name: str, options: Mapping[str, Any]) -> RewardComponent:
    """A component that is there already, or a copy of it with another weight.

    Raises:
        UserError: it is to have other options too.
    """
    if unknown := [option for option in options if option != "weight"]:
        raise UserError(f"{KEY}: {name} is an object already, and takes no {', '.join(unknown)}")
    if "weight" not in options:
        return component
    require_number(f"weight of {name}", options["weight"])
    component = copy(component)
    component.weight = options["weight"]
    return component


def _named(entry: Any) -> tuple[Any, str, dict[str, Any]]:
    """What an entry names, the name, and its arguments, which have been compared with the signature."""
    name, arguments = target_of(entry, KEY)
    found, label = load_object(name), f"{KEY}: {name}"
    if _is_component(found):
        require_arguments(found, arguments, label)
    elif is_custom(found):
        own = {key: value for key, value in arguments.items() if key not in SCALING}
        if shadowed := [key for key in arguments if key in SCALING and takes(found, key)]:
            raise UserError(
                f"{label} has a parameter {shadowed[0]} of its own, and {shadowed[0]} is an option of every component, "
                "which it would not get: rename the parameter"
            )
        require_arguments(found, own, label, 0 if isinstance(found, type) else 1, SCALING)
    for value in arguments.values():
        if _is_target(value):
            _predictor_class(value)
    return found, name, arguments


def _is_component(found: Any) -> bool:
    """Whether it is a component, and not to be wrapped in one."""
    return isinstance(found, type) and issubclass(found, RewardComponent)


def _is_target(value: Any) -> bool:
    """Whether an argument is a mapping that names code."""
    return isinstance(value, Mapping) and TARGET in value


def _predictor_class(value: Any) -> tuple[Any, str, dict[str, Any]]:
    """The class that an argument names, which must predict, its name and its arguments."""
    name, options = target_of(value, KEY)
    found = load_object(name)
    # A class of the user's, which may lack it: the error says so.
    if not isinstance(found, type) or not callable(getattr(found, "predict", None)):
        raise UserError(
            f"reward.components: {name} is not a class with predict, and an argument can be of no other class"
        )
    require_arguments(found, options, f"{KEY}: {name}")
    return found, name, options


def _value(value: Any) -> Any:
    """An argument; a mapping with `_target_` becomes an object of the class that it names."""
    if not _is_target(value):
        return value
    found, name, options = _predictor_class(value)
    return made(found, name, {key: _value(inner) for key, inner in options.items()}, KEY)
