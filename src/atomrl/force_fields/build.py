"""The force field that a configuration names, of molecules or of crystals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ase.calculators.calculator import BaseCalculator

from atomrl.core.protocols import ForceField
from atomrl.force_fields.ase_calculator import ASEForceField
from atomrl.force_fields.base import ForceFieldSpec
from atomrl.user_code.load import load_object
from atomrl.user_code.targets import made, require_methods, target_of
from atomrl.util.registry import registered, registered_names
from atomrl.workers.executor import Workers

KEY = "reward.force_field"

PACKAGE = "atomrl.force_fields"
"""Folder of the force fields that have a name."""

METHODS = ("elements", "evaluate", "close")
"""What any force field has."""


def build_force_field(chosen: str | Mapping[str, Any], settings: Mapping[str, Any]) -> ForceField:
    """A force field by its name, or the user's own.

    Args:
        chosen: the name of a file of this folder with a `SPEC`; or `{_target_: ..., key: value}`: such a name with
            options, the class of a calculator of ASE, which then runs in the workers, or one that implements
            `protocols.ForceField`.
        settings: of the reward: `workers`, `timeout`, `device` and what the force field of this name reads.

    Raises:
        UserError: there is none of this name, or the user's cannot be made, or is no force field.
    """
    named, given = (chosen, {}) if isinstance(chosen, str) else target_of(chosen, KEY)
    if isinstance(chosen, str) or named in registered_names(PACKAGE):
        spec: ForceFieldSpec = registered(PACKAGE, named, KEY)
        ours: ForceField = made(partial(spec.make, settings), named, given, KEY)
        return ours
    found, name, options = _of_the_user(chosen)
    if isinstance(found, BaseCalculator):
        return ASEForceField(name, options, settings["workers"], settings["timeout"])
    require_methods(found, name, METHODS, KEY)
    force_field: ForceField = found
    return force_field


def build_crystal_force_field(chosen: Mapping[str, Any], workers: Workers | int) -> Any:
    """The user's force field of crystals, whose energies a hull can be asked for.

    Args:
        chosen: `{_target_: ..., key: value}`: the class of a calculator of ASE, which then runs in the workers, or one
            that implements `measures.physics.HullForceField`.
        workers: of the run, or a number of processes.

    Returns:
        A `HullForceField`.

    Raises:
        UserError: it cannot be made, or is no force field.
    """
    from atomrl.force_fields.ase_crystals import ASECrystalForceField  # noqa: PLC0415 - an extra

    found, name, options = _of_the_user(chosen)
    if isinstance(found, BaseCalculator):
        return ASECrystalForceField(name, options, workers)
    require_methods(found, name, (*METHODS, "model_id", "correction"), KEY)
    return found


def _of_the_user(chosen: Mapping[str, Any]) -> tuple[Any, str, dict[str, Any]]:
    """Their object, its name and its options; one of ASE's too, so that what is wrong with its options shows now."""
    name, options = target_of(chosen, KEY)
    return made(load_object(name), name, options, KEY), name, options
