"""Which code a reward's configuration names, and whether it may run. Imports none of it, and no extra.

A configuration that the user composes may name any code. One that comes with a run may be somebody else's, and loading
a run must not run what it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atomrl.user_code.given import handed
from atomrl.util.errors import UserError
from atomrl.util.registry import registered_names

TARGET, SOURCE = "_target_", "source"

COMPONENTS = "atomrl.rewards.components"

PUBLISHED = {
    "src.rl_module.components": COMPONENTS,
    "src.rl_module.reward": "atomrl.rewards.reinforce",
}
"""Modules as published configurations name them, and where they are here."""

BUILT_IN = frozenset(
    {
        f"{COMPONENTS}.CreativityReward",
        f"{COMPONENTS}.EnergyReward",
        f"{COMPONENTS}.StructureDiversityReward",
        f"{COMPONENTS}.CompositionDiversityReward",
        f"{COMPONENTS}.PredictorReward",
        "atomrl.rewards.fresh_formula.FreshFormulaReward",
        "atomrl.rewards.metastability.MetastabilityReward",
        "atomrl.rewards.novelty.NoveltyReward",
        "atomrl.rewards.xtb_property.XTBPropertyReward",
    }
)
"""Components that run no code but the package's."""

FORCE_FIELDS = "atomrl.force_fields"

REWARD_TYPES = frozenset(
    {*registered_names(FORCE_FIELDS), *registered_names(FORCE_FIELDS, "CRYSTAL_SPEC"), "ase", "dummy"}
)
"""Rewards of the package that a component or `reward.force_field` may name; `ase` runs what the latter names."""

NAMES = (TARGET, SOURCE)
"""Keys of a mapping whose value is a name of code."""

RUNS = (*NAMES, "python", "model_file")
"""Keys of a mapping whose value runs: names of code, an interpreter, a model in a pickle."""


def here(name: str) -> str:
    """Where a published name is in this package; any other name as it is."""
    module, _, last = name.replace(":", ".").rpartition(".")
    return f"{PUBLISHED[module]}.{last}" if module in PUBLISHED else name


def foreign_code(entries: Any, keys: Sequence[str] = RUNS) -> list[str]:
    """What a reward's configuration names that is no component of this package, each once, in order.

    Args:
        entries: as of `build_components`. `CustomReward` is a way to name other code, and so is a mapping in a value.
        keys: whose values are asked for: `RUNS`, or `NAMES` alone.
    """
    found: list[str] = []
    for entry in entries if isinstance(entries, Sequence) else [entries]:
        if isinstance(entry, Mapping) and _built_in(entry.get(TARGET)):
            found += _named({key: value for key, value in entry.items() if key != TARGET}, keys)
        else:
            found += _named(entry, keys)
    return list(dict.fromkeys(found))


def require_trust(entries: Any, place: object, remedy: str) -> None:
    """Refuse to run code that somebody else's configuration names; what the program handed over is its own.

    Args:
        entries: mappings with `_target_`, out of a run's configuration, see `Config.code`.
        place: the file that they stand in.
        remedy: what says that the code may run, e.g. `--trust-code`.

    Raises:
        UserError: there is such code.
    """
    if named := [name for name in foreign_code(entries) if name not in handed()]:
        raise UserError(
            f"{place} names code that is not part of atomrl, and would run it: {', '.join(named)}; "
            f"add {remedy} if you know where the run comes from"
        )


def _built_in(target: Any) -> bool:
    """Whether a component's `_target_` is one of this package."""
    return isinstance(target, str) and (target in REWARD_TYPES or here(target).replace(":", ".") in BUILT_IN)


def _named(value: Any, keys: Sequence[str]) -> list[str]:
    """All code that nested mappings and lists name."""
    if isinstance(value, Mapping):
        own = [str(value[key]) for key in keys if key in value]
        return own + [name for key, inner in value.items() if key not in RUNS for name in _named(inner, keys)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [name for inner in value for name in _named(inner, keys)]
    return []
