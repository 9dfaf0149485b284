"""Force fields whose network runs in worker processes, and if it must in an environment of its own.

The packages of some networks change what is global in a process (seeds, how `torch.load` reads a file), need releases
that this one cannot have, or read models out of pickles, which may run code. None of that happens in this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from atomrl.force_fields.batches import Lots, require_size
from atomrl.force_fields.molecules import MoleculeForceField
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.workers.executor import Executor, Workers
from atomrl.workers.local import as_workers

LOADING = 300.0
"""Seconds that a worker may take for its first batch, besides the molecules': it loads the model."""


class Description(NamedTuple):
    """What a model says of itself.

    Attributes:
        elements: atomic numbers that it knows.
        atom_energies: {symbol: eV} to subtract from a molecule's energy; None if it has none.
    """

    elements: list[int]
    atom_energies: dict[str, float] | None


class Network:
    """Workers of a network: one process on a GPU; on the CPU as many as `workers` says, one thread each.

    Args:
        name: for messages.
        module: with the tasks.
        settings: of all tasks, besides `device`, `cpu` or `cuda`.
        batch_size: items evaluated together.
        workers: of the run, or a number of processes; one per core that this process may use if None.
        timeout: seconds per item.
        device: `auto` takes a GPU if there is one.
        python: interpreter of the network's own environment; None: it is installed here.

    Raises:
        UserError: an impossible number, or no such interpreter.

    Attributes:
        name, batch_size: as given.
    """

    def __init__(
        self,
        name: str,
        module: str,
        settings: Mapping[str, Any],
        batch_size: int,
        workers: Workers | int | None,
        timeout: float,
        device: str,
        python: str | None,
    ) -> None:
        require_size(batch_size)
        chosen = choose_device(device).type
        of_run = as_workers(workers)
        own = of_run if python is None else of_run.in_environment(python)
        self._workers = own.limited(1) if chosen == "cuda" else own
        self.name, self.batch_size = name, batch_size
        self._module, self._settings = module, {**settings, "device": chosen}
        self._timeout = LOADING + batch_size * timeout

    def described(self, task: str) -> Any:
        """What the model says of itself, by a worker that ends then.

        Raises:
            UserError: it cannot be loaded.
        """
        executor = self._workers.limited(1).executor(f"{self._module}:{task}", LOADING, self._settings)
        try:
            (outcome,) = executor.map([None])
        finally:
            executor.close()
        if outcome.reason is not None:
            raise UserError(f"{self.name} cannot be loaded: {outcome.reason}")
        return outcome.value

    def executor(self, task: str) -> Executor:
        """Of a task that takes a list of items."""
        return self._workers.executor(f"{self._module}:{task}", self._timeout, self._settings)


class NetworkForceField(MoleculeForceField):
    """Energies and forces by a network in worker processes, batched.

    On a GPU one process evaluates; on the CPU as many as `workers` says, one thread each. Reasons of failure besides
    those of the checks: `nonfinite_result`, `timeout`, `worker_died`, and `error` with the exception.

    Args:
        network: its workers. Tasks of its module are `describe(item, **settings)`, which returns a `Description`, and
            `evaluate(items, **settings)`, which returns energy (eV) and forces (eV/Å, (N, 3)) of each `Geometry`.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(self, network: Network) -> None:
        self._description = Description(*network.described("describe"))
        lots = Lots(network.batch_size, network.executor("evaluate"))
        super().__init__(network.name, frozenset(self._description.elements), lots)

    def atom_energies(self) -> Mapping[str, float]:
        """Those of the model.

        Raises:
            UserError: it has none.
        """
        if self._description.atom_energies is None:
            return super().atom_energies()
        return self._description.atom_energies


def existing(model_file: str, whose: str) -> str:
    """The whole path of a model's file.

    Args:
        model_file: as the user says it.
        whose: the network, and what to give, for the error.

    Raises:
        UserError: there is none.
    """
    path = Path(model_file).expanduser()
    if not path.is_file():
        raise UserError(f"no file {model_file} (from {Path.cwd()}) for {whose}")
    return str(path.resolve())
