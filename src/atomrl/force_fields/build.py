"""The force field that a configuration names, of molecules or of crystals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import inf
from pickle import PicklingError
from typing import Any

from ase.calculators.calculator import BaseCalculator

from atomrl.core.protocols import ForceField
from atomrl.force_fields.ase_calculator import ASEForceField
from atomrl.force_fields.base import CRYSTALS
from atomrl.force_fields.own import OwnForceField
from atomrl.user_code.arguments import require_arguments, takes
from atomrl.user_code.given import is_object, label_of
from atomrl.user_code.load import load_object
from atomrl.user_code.targets import made, require_methods, target_of
from atomrl.user_code.trust import TARGET
from atomrl.util.errors import UserError, first_line
from atomrl.util.registry import MARK, registered, registered_names
from atomrl.workers.executor import Workers

KEY = "reward.force_field"

PACKAGE = "atomrl.force_fields"
"""Folder of the force fields that have a name."""

TIMEOUT = "timeout"
"""What bounds a calculator of ASE on crystals, beside its own options; on molecules the reward's does."""

METHODS = ("elements", "evaluate", "close")
"""What any force field has."""


def build_force_field(chosen: str | Mapping[str, Any], settings: Mapping[str, Any]) -> ForceField:
    """A force field of molecules by its name, or the user's own.

    Args:
        chosen: the name of a file of this folder with a `SPEC`; or `{_target_: ..., key: value}`: such a name with
            options, the class of a calculator of ASE, which then runs in the workers, or one that implements
            `protocols.ForceField`.
        settings: of the reward: `workers`, `timeout`, `device` and what the force field of this name reads.

    Raises:
        UserError: there is none of this name, or the user's cannot be made, or is no force field.
    """
    if (found := _named(chosen, KEY, MARK)) is not None:
        spec, name, given = found
        ours: ForceField = made(partial(spec.make, settings), name, given, KEY)
        return ours
    own, name, options, borrowed = _of_the_user(chosen, KEY)
    if isinstance(own, BaseCalculator):
        return ASEForceField(name, options, settings["workers"], settings["timeout"], sent(name))
    require_methods(own, name, METHODS, KEY)
    return OwnForceField(own, name, borrowed)


def build_crystal_force_field(
    chosen: str | Mapping[str, Any],
    workers: Workers | int,
    device: str = "auto",
    batch_size: int = 16,
    gradients: bool = False,
    key: str = KEY,
) -> Any:
    """A force field of crystals by its name, or the user's own, whose energies a hull can be asked for.

    Args:
        chosen: the name of a file of this folder with a `CRYSTAL_SPEC`; or `{_target_: ..., key: value}`:
            such a name with options, the class of a calculator of ASE, which then runs in the workers, or one that
            implements `measures.physics.HullForceField`. `timeout`, seconds per crystal, beside a calculator is not
            its own option, unless it names it.
        workers: of the run, or a number of processes.
        device: `auto`, `cpu` or `cuda`.
        batch_size: crystals evaluated together.
        gradients: whether forces and stress are needed; one of the user's own says them anyway, or not.
        key: of the configuration, for messages.

    Returns:
        A `HullForceField`.

    Raises:
        UserError: there is none of this name, or the user's cannot be made, or is no force field of crystals.
    """
    from atomrl.force_fields.ase_crystals import ASECrystalForceField  # noqa: PLC0415 - an extra

    if (found := _named(chosen, key, CRYSTALS)) is not None:
        spec, name, given = found
        settings = {"workers": workers, "device": device, "batch_size": batch_size, "gradients": gradients}
        return made(partial(spec.make, settings), name, given, key)
    chosen, limit = _without_timeout(chosen, key)
    own, name, options, borrowed = _of_the_user(chosen, key)
    if isinstance(own, BaseCalculator):
        return ASECrystalForceField(name, options, workers, **limit, gradients=gradients, pickled=sent(name))
    if limit:
        raise UserError(f"{key}: {name} takes no {TIMEOUT}, which bounds calculators of ASE alone: leave it out")
    require_methods(own, name, (*METHODS, "model_id", "correction"), key)
    return OwnForceField(own, name, borrowed)


def crystal_hull_file(chosen: str | Mapping[str, Any], key: str = KEY) -> str:
    """Name of the file with the hull of a force field's energies, in the folder of a reference set.

    Args:
        chosen: as `build_crystal_force_field` takes it. One of the user's own has `hull-<name of its class>.json`.
        key: of the configuration, for messages.

    Raises:
        UserError: there is no force field of this name, or it is none of crystals.
    """
    if (found := _named(chosen, key, CRYSTALS)) is not None:
        hull_file: str = found[0].hull_file
        return hull_file
    name, _ = target_of(chosen, key)
    return f"hull-{name.replace(':', '.').rpartition('.')[2]}.json"


def _named(chosen: str | Mapping[str, Any], key: str, mark: str) -> tuple[Any, str, dict[str, Any]] | None:
    """What registers a force field of this folder, its name and its options; None for one of the user's.

    Raises:
        UserError: a name of this folder, or a text, that is no force field of this kind.
    """
    name, given = (chosen, {}) if isinstance(chosen, str) else target_of(chosen, key)
    ours = {*registered_names(PACKAGE, MARK), *registered_names(PACKAGE, CRYSTALS)}
    if not isinstance(chosen, str) and name not in ours:
        return None
    return registered(PACKAGE, name, key, mark), name, given


def check_force_field(chosen: str | Mapping[str, Any] | None, mark: str = MARK, key: str = KEY) -> None:
    """Import what is named, and compare its options with its signature; nothing is made.

    Args:
        chosen: as `build_force_field` takes it; None: nothing is.
        mark: of force fields of molecules or of crystals.
        key: of the configuration, for messages.

    Raises:
        UserError: there is none of this name, or it does not take these options.
    """
    if not isinstance(chosen, Mapping):
        return
    if (found := _named(chosen, key, mark)) is not None:
        spec, name, given = found
        require_arguments(spec.make, given, f"{key}: {name}", handed=1)
        return
    name, options = target_of(_without_timeout(chosen, key)[0] if mark == CRYSTALS else chosen, key)
    if not _is_made(code := load_object(name)):
        require_arguments(code, options, f"{key}: {name}")


def _without_timeout(chosen: str | Mapping[str, Any], key: str) -> tuple[str | Mapping[str, Any], dict[str, float]]:
    """A mapping without a `timeout` that the calculator which it names does not take itself, and that.

    Raises:
        UserError: it is no number of seconds.
    """
    name, options = target_of(chosen, key)
    found = load_object(name)
    other = isinstance(found, type) and not issubclass(found, BaseCalculator)
    if TIMEOUT not in options or other or takes(found, TIMEOUT):
        return chosen, {}
    seconds = options.pop(TIMEOUT)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < inf:
        raise UserError(f"{key}: {TIMEOUT} {seconds!r} is not a time: give seconds per crystal, above 0")
    return {TARGET: name, **options}, {TIMEOUT: float(seconds)}


def _of_the_user(chosen: str | Mapping[str, Any], key: str) -> tuple[Any, str, dict[str, Any], bool]:
    """Their object, its name, its options and whether it is borrowed.

    One of ASE's is made too, so that what is wrong with its options shows now.

    One that was handed over is taken as it is, and stays open.

    Raises:
        UserError: it cannot be made, or is an object already and is to have options.
    """
    name, options = target_of(chosen, key)
    found = load_object(name)
    if not _is_made(found):
        return made(found, name, options, key), name, options, False
    if options:
        raise UserError(f"{key}: {name} is an object already, and takes no {', '.join(options)}")
    return found, name, options, True


def _is_made(found: Any) -> bool:
    """Whether it is a calculator or a force field already, and neither a class nor what makes one."""
    return not isinstance(found, type) and (isinstance(found, BaseCalculator) or hasattr(found, "evaluate"))


def sent(name: str) -> bytes | None:
    """What workers make a calculator of that no module holds; None: they import it by its name.

    Raises:
        UserError: it cannot be sent to another process.
    """
    if not is_object(name):
        return None
    import cloudpickle  # noqa: PLC0415 - for objects of a program alone

    found = load_object(name)
    try:
        pickled: bytes = cloudpickle.dumps(found)
    except (TypeError, PicklingError, AttributeError) as error:
        raise UserError(
            f"{KEY}: {label_of(found)} cannot be sent to worker processes ({first_line(error)}): give its class, or a "
            "function that makes it"
        ) from error
    return pickled
