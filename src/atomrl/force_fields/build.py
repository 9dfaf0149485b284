"""The force field of molecules that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ase.calculators.calculator import BaseCalculator

from atomrl.core.protocols import ForceField
from atomrl.force_fields.ase_calculator import ASEForceField
from atomrl.force_fields.base import ForceFieldSpec
from atomrl.user_code.load import load_object
from atomrl.user_code.targets import made, require_methods, target_of
from atomrl.util.registry import registered

KEY = "reward.force_field"


def build_force_field(chosen: str | Mapping[str, Any], settings: Mapping[str, Any]) -> ForceField:
    """A force field by its name, or the user's own.

    Args:
        chosen: the name of a file of this folder with a `SPEC`; or `{_target_: ..., key: value}`: the class of a
            calculator of ASE, which then runs in the workers, or one that implements `protocols.ForceField`.
        settings: of the reward: `workers`, `timeout` and what the force field of this name reads.

    Raises:
        UserError: there is none of this name, or the user's cannot be made, or is no force field.
    """
    if isinstance(chosen, str):
        spec: ForceFieldSpec = registered("atomrl.force_fields", chosen, KEY)
        return spec.make(settings)
    name, options = target_of(chosen, KEY)
    kind = load_object(name)
    found = made(kind, name, options, KEY)  # one of ASE's too: what is wrong with its options shows now
    if isinstance(found, BaseCalculator):
        return ASEForceField(name, options, settings["workers"], settings["timeout"])
    require_methods(found, name, ("elements", "evaluate", "close"), KEY)
    force_field: ForceField = found
    return force_field
