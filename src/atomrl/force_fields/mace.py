"""MACE: equivariant networks with higher-order messages, in an environment of their own.

Source: Batatia et al. 2022, doi 10.48550/arXiv.2206.07697. `mace-torch` pins e3nn 0.4.4, which the packages here cannot
have, and makes `torch.load` unpickle whatever a file holds; so it runs in the worker processes of another interpreter:

    python -m venv mace && mace/bin/pip install mace-torch==0.3.16

A model is a file that holds a pickled network. Such a file may run code when it is loaded: take it from whom you trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.force_fields.base import ForceFieldSpec
from atomrl.force_fields.network_workers import NetworkForceField
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers

NAME = "MACE"
HOW = "reward.force_field={_target_: mace, python: mace/bin/python, model_file: my.model}"


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
        UserError: as `NetworkForceField`, or there is no such file.
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
        path = Path(model_file).expanduser()
        if not path.is_file():
            raise UserError(f"no file {model_file} (from {Path.cwd()}) for MACE: give a model that mace-torch saved")
        settings = {"model_file": str(path.resolve()), "head": head}
        module = "atomrl.force_fields.mace_task"
        super().__init__(NAME, module, settings, batch_size, workers, timeout, device, python)


def _make(
    settings: Mapping[str, Any], python: str | None = None, model_file: str | None = None, **options: Any
) -> MACEForceField:
    """Out of a configuration.

    Raises:
        UserError: interpreter or model are missing.
    """
    if python is None or model_file is None:
        raise UserError(f"mace needs the interpreter of an environment with mace-torch, and the file of a model: {HOW}")
    given = {name: settings[name] for name in ("workers", "timeout", "device")}
    return MACEForceField(python, model_file, **options, **given)


SPEC = ForceFieldSpec(NAME, _make)
