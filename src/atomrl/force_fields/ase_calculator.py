"""Any calculator of ASE as a force field for molecules, in worker processes."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
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
        settings = {"target": target, "options": dict(options), "folder": folder_of(self), "pickled": pickled}
        executor = as_workers(workers).executor("atomrl.force_fields.ase_task:SinglePoint", timeout, settings)
        super().__init__(target, frozenset(range(1, 119)), executor)


def folder_of(owner: object) -> str:
    """Where calculators that work by files do so, see `ase_task.calculator`; it lasts as long as its owner."""
    folder = tempfile.mkdtemp(prefix="atomrl-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
