"""What force fields of crystals share: the outcome of an evaluation, checks before it, batches and workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.core.records import Structures
from atomrl.force_fields.base import NONFINITE, Evaluation
from atomrl.force_fields.batches import require_size
from atomrl.force_fields.exceptions import Exceptions
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import CellBounds, check_cells, to_crystals
from atomrl.util.closeable import Closing
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers


@dataclass(frozen=True)
class CrystalEvaluation(Evaluation):
    """Energy, forces and stress of a crystal.

    Attributes:
        energy: of the cell, eV (models of crystals often say eV per atom); NaN if failed.
        forces: eV/Å, (N, 3); NaN if failed or not asked for.
        stress: (dE/dstrain) / volume, eV/Å³, (3, 3); NaN if failed or not asked for.
    """

    stress: NDArray[np.float64] = field(default_factory=lambda: np.full((3, 3), np.nan))


class ComputesCrystals(Protocol):
    """Computes crystals that passed the checks."""

    def compute(self, crystals: Sequence[Crystal]) -> list[CrystalEvaluation]:
        """One evaluation per crystal, in order."""

    def close(self) -> None:
        """Give back workers."""


class CrystalForceField(Closing):
    """Checks cells, and has those that pass evaluated; implements `protocols.ForceField`.

    Reasons besides those of `check_cells` are those of `computes`.

    Args:
        computes: what passed the check.
        bounds: of the cells; `CellBounds()` if None.

    Attributes:
        elements: atomic numbers that it knows.
        model_id: name, version and hash of the model; with `correction` it keys a hull.
        correction: correction scheme of the energies.
    """

    elements: frozenset[int]
    model_id: str
    correction: str

    def __init__(self, computes: ComputesCrystals, bounds: CellBounds | None = None) -> None:
        self.computes, self.bounds = computes, bounds or CellBounds()

    def evaluate(self, structures: Structures) -> list[CrystalEvaluation]:
        """Energy (eV), forces (eV/Å) and stress (eV/Å³) of each crystal, in order; warns once of exceptions.

        Raises:
            UserError: the structures have no cell, or the workers cannot start.
        """
        reasons = check_cells(structures, self.elements, self.bounds)
        sound = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
        found = self.computes.compute(to_crystals(structures[sound.to(structures.numbers.device)]))
        self._exceptions.note([result.reason for result in found])
        results = iter(found)
        return [
            next(results) if reason is None else failed(size, reason)
            for size, reason in zip(structures.sizes.tolist(), reasons, strict=True)
        ]

    def close(self) -> None:
        """End the workers."""
        self.computes.close()

    @cached_property
    def _exceptions(self) -> Exceptions:
        """Made late: a subclass may give itself its `model_id` after this class is initialised."""
        return Exceptions(self.model_id, "crystals")


class CrystalBatches:
    """Evaluates in batches, by a function of this package, here or in workers; implements `ComputesCrystals`.

    Reasons besides those of the evaluation: with workers `timeout`, `worker_died`. A batch that is lost so is evaluated
    again crystal by crystal, so that only the culprit stays without a score.

    Args:
        evaluate_batch: function of a module, which workers import by its name: (crystals that passed the check,
            `device` and `settings` as keywords) -> one evaluation per crystal, in order. With workers it may be a
            class, see `executor.Workers`.
        settings: picklable keyword arguments of it.
        batch_size: crystals evaluated together.
        workers: of the run, or a number of processes, on the CPU; 0 evaluates in this process.
        timeout: seconds per batch in a worker.
        device: e.g. `cuda`; None takes a GPU if there is one. Only without workers.

    Raises:
        UserError: an impossible number, or a device beside workers.
    """

    def __init__(
        self,
        evaluate_batch: Callable[..., Any],
        settings: Mapping[str, Any],
        batch_size: int,
        workers: Workers | int,
        timeout: float,
        device: str | None,
    ) -> None:
        require_size(batch_size)
        if isinstance(workers, int) and workers < 0:
            raise UserError(f"workers must be at least 0, got {workers}")
        if workers and device not in (None, "cpu"):
            raise UserError(f"workers of a force field run on the CPU, got device={device!r}: set workers to 0")
        self.device = device or ("cuda" if torch.cuda.is_available() and not workers else "cpu")
        self._batch_size, self._evaluate_batch = batch_size, evaluate_batch
        self._settings = {**settings, "device": self.device}
        task = f"{evaluate_batch.__module__}:{evaluate_batch.__name__}"
        self.executor = as_workers(workers).executor(task, timeout, self._settings) if workers else None

    def compute(self, crystals: Sequence[Crystal]) -> list[CrystalEvaluation]:
        """One evaluation per crystal, in order."""
        if self.executor is None:
            starts = range(0, len(crystals), self._batch_size)
            batches = [list(crystals[start : start + self._batch_size]) for start in starts]
            results: list[CrystalEvaluation] = []
            for batch in batches:
                results += self._evaluate_batch(batch, **self._settings)
            return results
        return [
            outcome.value if outcome.reason is None else failed(len(crystal.numbers), outcome.reason)
            for crystal, outcome in zip(crystals, self.executor.map_lots(crystals, self._batch_size), strict=True)
        ]

    def close(self) -> None:
        """End the workers."""
        if self.executor is not None:
            self.executor.close()


class Place(TypedDict):
    """Where `CrystalBatches` compute, as a force field around them takes it."""

    device: str
    workers: Workers | int


def place_of(settings: Mapping[str, Any]) -> Place:
    """A GPU, which this process feeds, or else the workers; as a configuration's `device` and `workers` say.

    Raises:
        UserError: `cuda` is asked for and torch sees no GPU.
    """
    if choose_device(settings["device"]).type == "cuda":
        return {"device": "cuda", "workers": 0}
    return {"device": "cpu", "workers": settings["workers"]}


def unknown_gradients(atoms: int) -> NDArray[np.float64]:
    """Forces (N, 3) that nobody asked for: NaN."""
    return np.full((atoms, 3), np.nan)


def checked(energy: float, forces: NDArray[np.float64], stress: NDArray[np.float64] | None = None) -> CrystalEvaluation:
    """The result, or `nonfinite_result`; `stress` is None where no gradients were asked for."""
    if stress is None:
        result, finite = CrystalEvaluation(float(energy), forces, None), True
    else:
        result = CrystalEvaluation(float(energy), forces, None, stress=stress)
        finite = bool(np.isfinite(forces).all() and np.isfinite(stress).all())
    return result if finite and np.isfinite(energy) else failed(len(forces), NONFINITE)


def failed(atoms: int, reason: str) -> CrystalEvaluation:
    """The evaluation of a crystal that has no result."""
    return CrystalEvaluation(float("nan"), unknown_gradients(atoms), reason)
