"""Any calculator of ASE as a force field for molecules, in worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

from atomrl.force_fields.molecules import MoleculeForceField
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers


class ASEForceField(MoleculeForceField):
    """Energies and forces by a calculator of ASE, one in each worker.

    A calculator that raises costs that molecule's score: its reason is `error`, with the exception.

    Args:
        target: of the calculator's class, or of a function that makes one: a dotted path, or `path/to/file.py:name`.
        options: of its constructor.
        workers: processes, one thread each; one per core that this process may use if None.
        timeout: seconds per molecule, after which its worker is killed.
        pickled: the calculator, or what makes it, where workers cannot import it by its name.
    """

    def __init__(
        self,
        target: str,
        options: Mapping[str, Any],
        workers: Workers | int | None = None,
        timeout: float = 10.0,
        pickled: bytes | None = None,
    ) -> None:
        self._folder = working_folder()
        settings = {"target": target, "options": dict(options), "folder": self._folder.name, "pickled": pickled}
        executor = as_workers(workers).executor("atomrl.force_fields.ase_task:SinglePoint", timeout, settings)
        super().__init__(target, frozenset(range(1, 119)), executor)

    def close(self) -> None:
        """End the workers, and remove what they wrote."""
        super().close()
        self._folder.cleanup()


def working_folder() -> TemporaryDirectory[str]:
    """Where calculators that work by files do so, see `ase_task.calculator`."""
    return TemporaryDirectory(prefix="atomrl-", ignore_cleanup_errors=True)
