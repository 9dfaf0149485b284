"""What a call gives beside its configuration: a reward, a policy, an objective, a force field, as Python has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ase.calculators.calculator import BaseCalculator

from atomrl.checkpoints.hub import pins
from atomrl.config import Config, MoleculeConfig, with_further
from atomrl.config.crystals import CrystalReward
from atomrl.config.molecules import BUILT_IN, MoleculeReward
from atomrl.config.naming import is_named, key_of
from atomrl.config.sections import TARGET
from atomrl.core.protocols import DiffusionPolicy
from atomrl.rewards.base import SCALING, RewardComponent
from atomrl.training.changed_settings import changes
from atomrl.user_code.arguments import takes
from atomrl.user_code.given import Names, handed_over, importable_name, label_of
from atomrl.user_code.load import forget_changed_files
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from atomrl.core.objectives.base import Objective
    from atomrl.core.protocols import ForceField, Model, Reward
    from atomrl.library.run import Run

    Component: TypeAlias = str | Mapping[str, Any] | Callable[..., Any] | RewardComponent | Reward
    RewardLike: TypeAlias = Component | Sequence[Component] | Mapping[Any, float]
    PolicyLike: TypeAlias = str | Path | Run | Model | DiffusionPolicy
    ObjectiveLike: TypeAlias = str | Mapping[str, Any] | Callable[..., Objective] | Objective
    ForceFieldLike: TypeAlias = str | Mapping[str, Any] | Callable[..., Any] | BaseCalculator | ForceField

PLAIN = (str, int, float, bool, type(None))
"""Arguments that a configuration can hold."""

REWARD, COMPONENTS, MOLECULES = "reward", "reward.components", "molecules"

CHANNELS = ("force", "energy", "stability")
"""Of the built-in rewards of molecules; `train.<channel>_adv_weight` is the weight of each."""


@dataclass(frozen=True)
class Given:
    """What was given, by names that a configuration can hold.

    Attributes:
        values: {key of the configuration: value}.
        objects: {name in these values: the object}.
        said: how the call said it, {argument: name}.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    objects: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, *, reward: Any = None, policy: Any = None, objective: Any = None, force_field: Any = None) -> Given:
        """Name what is given; None: what the configuration says.

        Raises:
            UserError: something of another type.
        """
        names = Names()
        values: dict[str, Any] = {}
        if reward is not None:
            values |= _reward(reward, names)
        if policy is not None:
            values["model.backbone"] = _policy(policy, names)
        if objective is not None:
            values["train.objective"] = _named("objective", objective, names, "loss", "an objective or its class")
        if force_field is not None:
            values["reward.force_field"] = _named(
                "force_field", force_field, names, "evaluate", "a calculator of ASE, what makes one, or a ForceField"
            )
        all_given = {"reward": reward, "policy": policy, "objective": objective, "force_field": force_field}
        said = {argument: _shown(value) for argument, value in all_given.items() if value is not None}
        return cls(values, names.objects, said)

    def handed_over(self) -> AbstractContextManager[None]:
        """While entered, the names stand for the objects; files of the user's are read anew if they were changed."""
        forget_changed_files()
        return handed_over(self.objects)

    def put_into(self, tree: dict[str, Any], overrides: Sequence[str] = ()) -> Mapping[str, Any]:
        """A configuration's values with those that were given; see `config.compose.Further`.

        A weight of a channel that a given reward does not have is at its default, unless it was typed.

        Raises:
            UserError: a value was typed too.
        """
        typed = {key_of(override) for override in overrides}
        said = {*self.values, *(["reward.type"] if COMPONENTS in self.values else [])}
        if twice := sorted(word for word in typed for key in said if f"{word}.".startswith(f"{key}.")):
            raise UserError(f"{twice[0]} is given twice, as an override and as an argument: leave out one")
        for key, value in self.values.items():
            section, _, name = key.partition(".")
            tree[section] = {**(tree.get(section) or {}), name: value}
        if COMPONENTS not in self.values:
            return tree
        if tree.get("domain", MOLECULES) == MOLECULES:
            absent = {f"{channel}_adv_weight" for channel in _absent_channels(tree["reward"])}
            train = tree.get("train") or {}
            tree["train"] = {
                name: value for name, value in train.items() if name not in absent or f"train.{name}" in typed
            }
        elif "reward.type" not in self.values:
            tree["reward"]["type"] = CrystalReward().type  # not the dummy, which has no components
        return tree

    def require_read(self, config: Config) -> None:
        """Refuse what a run would not use.

        Raises:
            UserError: a force field that no part of the reward asks, or another one beside that of the reward.
        """
        if not isinstance(config, MoleculeConfig):
            return
        config.reward.require_one_force_field(self.values)
        if "reward.force_field" not in self.values:
            return
        if config.reward.chosen_force_field is None:
            raise UserError(
                f"force_field={self.said['force_field']}: no part of the reward asks a force field; add 'ase', which "
                "does, reward=['ase', ...], or leave it out"
            )

    def require_same(self, place: Path, described: Config) -> None:
        """Refuse something else than a run was trained with.

        Args:
            place: the run directory.
            described: what its config.yaml says.

        Raises:
            UserError: it was given.
        """
        changed = changes(described, with_further(described, self.put_into))
        differing = {
            key: (old, new)
            for key, (old, new) in changed.items()
            if is_named(key, [f"{given}=" for given in self.values]) and not pins(old, new)
        }
        if differing:
            words = "; ".join(f"{key}={new}, the run has {old}" for key, (old, new) in differing.items())
            raise UserError(f"{place} has what it was trained with, but something else was given: {words}")


def _absent_channels(reward: Mapping[str, Any]) -> list[str]:
    """Channels of the built-in rewards that a reward of molecules lacks; none if it is refused for another reason."""
    try:
        there = MoleculeReward.read(reward).channels
    except UserError:
        return []  # said when the whole configuration is checked
    return [channel for channel in CHANNELS if channel not in there]


def _reward(reward: Any, names: Names) -> dict[str, Any]:
    """The values that say a reward."""
    if isinstance(reward, str) and reward in BUILT_IN:
        return {"reward.type": reward, COMPONENTS: []}
    if isinstance(reward, Mapping) and TARGET not in reward:
        entries = [_with_weight(item, weight, names) for item, weight in reward.items()]
    else:
        items = reward if isinstance(reward, list | tuple) else [reward]
        entries = [_component(item, names) for item in items]
    if not entries:
        raise UserError(f"reward={reward!r} is empty: name at least one component, or leave it out")
    return {COMPONENTS: entries}


def _with_weight(item: Any, weight: Any, names: Names) -> dict[str, Any]:
    """A component with its weight."""
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise UserError(f"reward: the weight of {_shown(item)} is {weight!r}; give {{component: number}}")
    entry = _component(item, names)
    if entry[TARGET] not in BUILT_IN:
        return {**entry, "weight": float(weight)}
    if weight != 1:
        raise UserError(
            f"reward: {entry[TARGET]} has the weights train.force_adv_weight, train.energy_adv_weight and "
            f"train.stability_adv_weight: give it 1 here, not {weight}, and override these"
        )
    return entry


def _component(item: Any, names: Names) -> dict[str, Any]:
    """A component as a configuration has it."""
    wanted = "a function of structures, a reward component, a Reward, a name, or a list or {component: weight} of these"
    return dict(_entry(REWARD, item, names, ("compute", "score"), wanted))


def _named(argument: str, value: Any, names: Names, method: str, wanted: str) -> Any:
    """A name as it is; anything else as a mapping."""
    return value if isinstance(value, str) else _entry(argument, value, names, (method,), f"a name, {wanted}")


def _entry(argument: str, value: Any, names: Names, methods: Sequence[str], wanted: str) -> dict[str, Any]:
    """A mapping with `_target_`.

    Raises:
        UserError: the value is none of what is wanted.
    """
    if isinstance(value, str):
        return {TARGET: value}
    if isinstance(value, Mapping):
        inside = _entry(argument, value.get(TARGET), names, methods, wanted)
        return {**inside, **{str(name): option for name, option in value.items() if name != TARGET}}
    if isinstance(value, partial) and _says_its_options(argument, value):
        return {TARGET: names.of(value.func), **value.keywords}
    if isinstance(value, partial) and isinstance(value.func, type) and argument == REWARD:
        raise UserError(
            f"reward={_shown(value)}: a configuration cannot hold the arguments of this partial, or takes them for "
            f"those of every component ({', '.join(SCALING)}): give an object, {_shown(value)}(...)"
        )
    if callable(value) or isinstance(value, BaseCalculator) or any(hasattr(value, method) for method in methods):
        return {TARGET: names.of(value)}
    raise UserError(f"{argument}={value!r}: give {wanted}")


def _says_its_options(argument: str, value: partial[Any]) -> bool:
    """Whether a configuration can say a partial: something importable, or the class of a reward, and its keywords.

    Not of a reward's whose keyword would be taken for an option of every component, as `eps`.
    """
    kind = value.func
    named = importable_name(kind) is not None or (argument == REWARD and isinstance(kind, type))
    if value.args or not _plain(value.keywords) or not named:
        return False
    if argument != REWARD or (isinstance(kind, type) and issubclass(kind, RewardComponent)):
        return True
    return not any(name in SCALING and takes(kind, name) for name in value.keywords)


def _policy(policy: Any, names: Names) -> str:
    """A name, or the name of an object.

    Raises:
        UserError: it is a class, or lacks methods.
    """
    from atomrl.library.run import Run  # noqa: PLC0415 - it knows what was given

    if isinstance(policy, str | Path):
        return str(policy)
    if isinstance(policy, Run):
        names.objects = {
            **policy.given.objects,
            **names.objects,
        }  # its policy may be one; what is new stands for itself
        return str(policy.folder)
    if isinstance(policy, type):
        raise UserError(f"policy={policy.__name__} is a class: give an object of it, policy={policy.__name__}(...)")
    is_model = all(hasattr(policy, name) for name in ("policy", "card", "sizes"))
    if is_model or isinstance(policy, DiffusionPolicy):
        return names.of(policy)
    lacking = [name for name in _methods(DiffusionPolicy) if not hasattr(policy, name)]
    raise UserError(
        f"policy={_shown(policy)} has no {', '.join(lacking)}: give a name, a path, a model that atomrl.load gave, or "
        "an object with the methods of DiffusionPolicy"
    )


def _methods(protocol: type[Any]) -> list[str]:
    """What a protocol asks for."""
    return [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]


def _plain(options: Any) -> bool:
    """Whether a configuration can hold these values."""
    if isinstance(options, Mapping):
        return all(isinstance(name, str) and _plain(value) for name, value in options.items())
    if isinstance(options, list):
        return all(map(_plain, options))
    return isinstance(options, PLAIN)


def _shown(value: Any) -> str:
    """As a reader would type it."""
    if isinstance(value, str | Path | int | float):
        return repr(str(value) if isinstance(value, Path) else value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_shown(key)}: {_shown(inner)}' for key, inner in value.items())}}}"
    return label_of(value)
