"""MACE: equivariant networks with higher-order messages, in an environment of their own.

Source: Batatia et al. 2022, doi 10.48550/arXiv.2206.07697. `mace-torch` pins e3nn 0.4.4, which the packages here cannot
have, and makes `torch.load` unpickle whatever a file holds; so it runs in the worker processes of another interpreter:

    python -m venv mace && mace/bin/pip install mace-torch==0.3.16

A model is a file that holds a pickled network. Such a file may run code when it is loaded: take it from whom you trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atomrl.force_fields.base import CrystalForceFieldSpec, ForceFieldSpec
from atomrl.force_fields.network_workers import Network, NetworkForceField, existing
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers

if TYPE_CHECKING:
    from atomrl.force_fields.network_crystals import NetworkCrystals

NAME = "MACE"
TASKS = "atomrl.force_fields.mace_task"
MODEL = "MACE: give a model that mace-torch saved"
HOW = "{_target_: mace, python: mace/bin/python, model_file: my.model}"


class MACEForceField(NetworkForceField):
    """Energies and forces of molecules by a MACE model; see `NetworkForceField`.

    Args:
        python: interpreter of an environment with mace-torch, Python 3.11 or later and NumPy 2.
        model_file: of the network, as mace-torch saves it.
        head: of a model with several; its first if None.
        batch_size: molecules evaluated together.
        workers: of the run, or a number of processes; one per core that this process may use if None.
        timeout: seconds per molecule.
        device: `auto` takes a GPU if there is one.

    Raises:
        UserError: as `Network` and `NetworkForceField`, or there is no such file.
    """

    def __init__(
        self,
        python: str,
        model_file: str,
        head: str | None = None,
        batch_size: int = 32,
        workers: Workers | int | None = None,
        timeout: float = 10.0,
        device: str = "auto",
    ) -> None:
        settings = {"model_file": existing(model_file, MODEL), "head": head}
        super().__init__(Network(NAME, TASKS, settings, batch_size, workers, timeout, device, python))


def mace_crystals(
    python: str,
    model_file: str,
    head: str | None = None,
    correction: str = "none",
    batch_size: int = 16,
    workers: Workers | int | None = None,
    timeout: float = 10.0,
    device: str = "auto",
    gradients: bool = False,
) -> NetworkCrystals:
    """Energies of crystals by a MACE model, and if asked for forces and stress; arguments as of `MACEForceField`.

    Args:
        python: interpreter.
        model_file: of the network.
        head: of a model with several.
        correction: of the energies: `MP2020` for a model that learned the uncorrected energies of Materials Project,
            e.g. MACE-MP-0; else `none`.
        batch_size: crystals evaluated together.
        workers: of the run, or a number of processes.
        timeout: seconds per crystal.
        device: `auto` takes a GPU if there is one.
        gradients: whether to compute forces and stress.

    Raises:
        UserError: as `MACEForceField`, or an unknown correction.
    """
    from atomrl.force_fields.network_crystals import NetworkCrystals  # noqa: PLC0415 - an extra

    settings = {"model_file": existing(model_file, MODEL), "head": head, "gradients": gradients}
    name = "mace" if head is None else f"mace-{head}"
    return NetworkCrystals(Network(name, TASKS, settings, batch_size, workers, timeout, device, python), correction)


def _make(settings: Mapping[str, Any], **options: Any) -> MACEForceField:
    """Out of a configuration."""
    _require_place(options)
    return MACEForceField(**options, **{name: settings[name] for name in ("workers", "timeout", "device")})


def _make_crystals(settings: Mapping[str, Any], **options: Any) -> NetworkCrystals:
    """Out of a configuration."""
    _require_place(options)
    return mace_crystals(**{**settings, **options})


def _require_place(options: Mapping[str, Any]) -> None:
    """Raise UserError where interpreter or model are missing."""
    if options.get("python") is None or options.get("model_file") is None:
        raise UserError(
            f"mace needs the interpreter of an environment with mace-torch, and the file of a model: name it as {HOW}"
        )


SPEC = ForceFieldSpec(NAME, _make)
CRYSTAL_SPEC = CrystalForceFieldSpec(_make_crystals, "hull-mace.json")
