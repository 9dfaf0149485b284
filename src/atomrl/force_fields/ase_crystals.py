"""Any calculator of ASE as a force field for crystals, in worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.force_fields.ase_calculator import folder_of
from atomrl.force_fields.ase_task import calculator, forces_of
from atomrl.force_fields.batches import periodic
from atomrl.force_fields.crystals import (
    CrystalBatches,
    CrystalEvaluation,
    CrystalForceField,
    checked,
    unknown_gradients,
)
from atomrl.structures.cells import Crystal
from atomrl.util.errors import UserError
from atomrl.util.files import content_hash, file_that_is_read
from atomrl.workers.executor import Workers


class ASECrystalForceField(CrystalForceField):
    """Energies of crystals by a calculator of ASE, one in each worker, which takes one crystal at a time.

    Cells are checked first, as for CHGNet. A calculator that raises costs that crystal's score: its reason is `error`,
    with the exception.

    Args:
        target: of the calculator's class: a dotted path, or `path/to/file.py:name`.
        options: of its constructor.
        workers: of the run, or a number of processes, at least 1.
        timeout: seconds per crystal, after which its worker is killed.
        gradients: whether to compute forces and stress; a hull compares energies alone.
        pickled: as of `ASEForceField`.

    Attributes:
        elements: all; those that the calculator does not know, it refuses itself.
        model_id: the target and its options, e.g. `ase.calculators.lj.LennardJones(sigma=2.5)`. Files stand there by a
            hash of their content: a target's own, `mine.py 0123456789ab:Mine()`, and those that options name to be read
            (see `file_that_is_read`), `MyNetwork(model='file 0123456789ab')`.
        correction: `none`: the energies are taken as they come.

    Raises:
        UserError: `workers` is less than 1, or a file of the target or of an option cannot be read.
    """

    elements = frozenset(range(1, 119))
    correction = "none"

    def __init__(
        self,
        target: str,
        options: Mapping[str, Any],
        workers: Workers | int,
        timeout: float = 60.0,
        gradients: bool = False,
        pickled: bytes | None = None,
    ) -> None:
        if isinstance(workers, int) and workers < 1:
            raise UserError(f"a calculator of ASE runs in worker processes, got workers={workers}: set at least 1")
        given = ", ".join(f"{name}={_identified(name, value)!r}" for name, value in sorted(options.items()))
        self.model_id = f"{_identified_target(target)}({given})"
        settings = {"target": target, "options": dict(options), "gradients": gradients, "pickled": pickled}
        settings["folder"] = folder_of(self)
        super().__init__(CrystalBatches(CrystalSinglePoints, settings, 1, workers, timeout, "cpu"))


def _identified_target(target: str) -> str:
    """A target, with the content of a file of the user's in the place of where it lies."""
    place, _, name = target.rpartition(":")
    return f"{Path(place).name} {content_hash(Path(place))}:{name}" if place.endswith(".py") else target


def _identified(name: str, value: Any) -> Any:
    """An option, or what is in it, with the content of each file that is read in the place of its path."""
    if isinstance(value, Mapping):
        return {inner: _identified(str(inner), held) for inner, held in value.items()}
    if isinstance(value, list | tuple):
        return [_identified(name, held) for held in value]
    file = file_that_is_read(name, value)
    return value if file is None else f"file {content_hash(file)}"


class CrystalSinglePoints:
    """Evaluates crystals, one after the other; the task of the workers.

    Args:
        device: not used: where a calculator computes is among its own options.
        target: of the calculator's class.
        options: of its constructor.
        gradients: whether to compute forces and stress.
        folder: see `ase_task.calculator`.
        pickled: the calculator, or what makes it, if nothing can import it.
    """

    def __init__(
        self,
        device: str,
        target: str,
        options: Mapping[str, Any],
        gradients: bool,
        folder: str,
        pickled: bytes | None = None,
    ) -> None:
        self._calculator, self._gradients = calculator(target, options, folder, pickled), gradients

    def __call__(self, item: list[Crystal]) -> list[CrystalEvaluation]:
        """Of crystals that passed `check_cells`."""
        results = []
        atoms: Any
        for atoms in periodic(item):
            atoms.calc = self._calculator
            energy = float(atoms.get_potential_energy())
            if self._gradients:
                results.append(checked(energy, forces_of(atoms), atoms.get_stress(voigt=False)))
            else:
                results.append(checked(energy, unknown_gradients(len(atoms))))
        return results
