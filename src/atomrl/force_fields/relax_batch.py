"""Relaxation of many crystals at once, positions and cells, by any force field of crystals.

Each step evaluates all crystals that still move in one call, so that the force field's batches stay full; each crystal
follows its own FIRE (Bitzek et al. 2006, doi 10.1103/PhysRevLett.97.170201), with ASE's parameters and, for the cell,
the coordinates of ASE's `UnitCellFilter`: with x the positions, F the deformation of the first cell, n atoms and the
virial W = -V stress,

| | coordinate | force |
|---|---|---|
| atoms | x F^-T | f F |
| cell | n F | (F^-1 W^T)^T / n |
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atomrl.core.protocols import ForceField
from atomrl.core.records import Structures
from atomrl.force_fields.base import NONFINITE
from atomrl.force_fields.descent import SLOW
from atomrl.structures.padding import replace_rows
from atomrl.util.errors import UserError

FIRST_STEP, LONGEST_STEP, LONGEST_MOVE = 0.1, 1.0, 0.2
"""Time steps of FIRE, in ASE's units; Å, that all coordinates of a crystal together move in a step."""
PATIENCE, FASTER, SLOWER, MIXING, LESS_MIXING = 5, 1.1, 0.5, 0.1, 0.99
"""FIRE's N_min, f_inc, f_dec, alpha_start and f_alpha."""


@dataclass(frozen=True)
class RelaxedBatch:
    """What became of B crystals.

    Attributes:
        structures: their last geometries that were evaluated; that given of one which never was.
        energies: eV of the cells, (B,); NaN where there is a reason.
        reasons: None, also for one that did not converge; else `slow`, `nonfinite_result` of forces or stress, or why
            the force field has no result, with which it started or which it came to on its way (`overlap`, ...).
        converged: whether no force, on an atom or the cell, exceeds the bound, (B,).
        steps: that each took, (B,).
    """

    structures: Structures
    energies: NDArray[np.float64]
    reasons: tuple[str | None, ...]
    converged: NDArray[np.bool_]
    steps: NDArray[np.int64]


def relax_batch(
    force_field: ForceField, structures: Structures, max_steps: int, fmax: float = 0.1, max_seconds: float = math.inf
) -> RelaxedBatch:
    """Move positions and cells until no force exceeds `fmax`, or for `max_steps` steps.

    Args:
        force_field: of crystals, with forces and `stress`; it checks each geometry before it evaluates it.
        structures: B crystals; results come on the CPU, in float64.
        max_steps: there is one evaluation more.
        fmax: eV/Å; for the cell in the same unit.
        max_seconds: on the clock; what still moves then is `slow`.

    Raises:
        UserError: the structures have no cell, or the force field gives no stress.
    """
    structures = _doubled(structures)
    assert structures.cell is not None
    started, start = time.monotonic(), structures.cell.clone()
    batch, atoms = structures.mask.shape
    energies, converged = np.full(batch, np.nan), np.zeros(batch, dtype=bool)
    steps = np.zeros(batch, dtype=np.int64)
    reasons: list[str | None] = [None] * batch
    rows = torch.arange(batch)
    fire = _Fire(batch, atoms + 3)
    moving = structures
    for step in range(max_steps + 1):
        if not len(rows):
            break
        results = force_field.evaluate(moving)
        failures = [_failure(result) for result in results]
        if step == 0:
            _require_stress(results, failures)
        good = torch.tensor([failure is None for failure in failures], dtype=torch.bool)
        for row, result, failure in zip(rows.tolist(), results, failures, strict=True):
            energies[row], reasons[row] = result.energy if failure is None else np.nan, failure
        results = [result for result, failure in zip(results, failures, strict=True) if failure is None]
        rows, moving = rows[good], moving[good]
        structures, steps[rows.numpy()] = replace_rows(structures, rows.tolist(), moving), step
        forces = _forces(moving, start[rows], results)
        still = torch.linalg.vector_norm(forces, dim=2).amax(1) > fmax
        converged[rows[~still].numpy()] = True
        rows, moving, forces = rows[still], moving[still], forces[still]
        if step == max_steps:  # they have taken all their steps, however long these took
            break
        if time.monotonic() - started > max_seconds:
            for row in rows.tolist():
                energies[row], reasons[row] = np.nan, SLOW
            break
        moving = _moved(moving, start[rows], fire.step(rows, forces))
    return RelaxedBatch(structures, energies, tuple(reasons), converged, steps)


class _Fire:
    """The state of each crystal's search.

    Args:
        batch: crystals.
        places: vectors of coordinates of each.
    """

    def __init__(self, batch: int, places: int) -> None:
        self._speed = torch.zeros(batch, places, 3, dtype=torch.float64)
        self._time = torch.full((batch,), FIRST_STEP, dtype=torch.float64)
        self._mixing = torch.full((batch,), MIXING, dtype=torch.float64)
        self._downhill = torch.zeros(batch, dtype=torch.int64)
        self._begun = torch.zeros(batch, dtype=torch.bool)

    def step(self, rows: Tensor, forces: Tensor) -> Tensor:
        """How far the crystals at these rows (R,) move under forces (R, places, 3)."""
        speed, span, mixing = self._speed[rows], self._time[rows], self._mixing[rows]
        downhill, begun = self._downhill[rows], self._begun[rows]
        ahead = (forces * speed).sum((1, 2)) > 0
        along = forces * (_size(speed) / _size(forces).clamp(min=1e-300))
        share = mixing[:, None, None]
        speed = torch.where((ahead & begun)[:, None, None], (1 - share) * speed + share * along, 0.0)
        patient = ahead & (downhill > PATIENCE)
        back = begun & ~ahead
        span = torch.where(patient, (span * FASTER).clamp(max=LONGEST_STEP), torch.where(back, span * SLOWER, span))
        mixing = torch.where(patient, mixing * LESS_MIXING, torch.where(back, MIXING, mixing))
        speed = speed + span[:, None, None] * forces
        move = span[:, None, None] * speed
        move = move * (LONGEST_MOVE / _size(move).clamp(min=LONGEST_MOVE))
        self._speed[rows], self._time[rows], self._mixing[rows] = speed, span, mixing
        self._downhill[rows] = torch.where(ahead, downhill + 1, 0)
        self._begun[rows] = True
        return move


def _require_stress(results: Sequence[Any], failures: Sequence[str | None]) -> None:
    """Raise UserError for a force field of which no result has one."""
    if any(result.reason is None for result in results) and all(failures):
        raise UserError(
            "a relaxation needs stresses, and this force field's results have no `stress`, (3, 3) in eV/Å³ beside the "
            "forces: leave it out"
        )


def _failure(result: Any) -> str | None:
    """Why a result moves nothing: its reason, or forces or a stress that are missing or not finite; else None."""
    if result.reason is not None:
        return str(result.reason)
    stress = np.array(result.stress if hasattr(result, "stress") else np.nan, dtype=np.float64)
    known = result.forces is not None and np.isfinite(result.forces).all() and np.isfinite(stress).all()
    return None if known and stress.shape == (3, 3) else NONFINITE


def _forces(structures: Structures, start: Tensor, results: list[Any]) -> Tensor:
    """Forces on the coordinates of atoms and cell, eV/Å, (R, N + 3, 3)."""
    assert structures.cell is not None
    on_atoms = torch.zeros(structures.positions.shape, dtype=torch.float64)
    on_atoms[structures.mask] = torch.from_numpy(
        np.concatenate([result.forces for result in results], dtype=np.float64) if results else np.zeros((0, 3))
    )
    stress = torch.tensor(np.array([result.stress for result in results]).reshape(-1, 3, 3))
    deformation = _deformation(structures.cell, start)
    volume = torch.linalg.det(structures.cell).abs()
    virial = -volume[:, None, None] * stress
    on_cell = torch.linalg.solve(deformation, virial.mT).mT / structures.sizes[:, None, None]
    return torch.cat([on_atoms @ deformation, on_cell], 1)


def _moved(structures: Structures, start: Tensor, move: Tensor) -> Structures:
    """The crystals after a step (R, N + 3, 3) of the coordinates of atoms and cell."""
    assert structures.cell is not None
    deformation = _deformation(structures.cell, start)
    places = torch.linalg.solve(deformation, structures.positions.mT).mT + move[:, :-3]
    deformation = deformation + move[:, -3:] / structures.sizes[:, None, None]
    positions = (places @ deformation.mT) * structures.mask[..., None]
    return replace(structures, positions=positions, cell=start @ deformation.mT)


def _deformation(cell: Tensor, start: Tensor) -> Tensor:
    """F of cell = start F^T, (R, 3, 3)."""
    deformation: Tensor = torch.linalg.solve(start, cell).mT
    return deformation


def _doubled(structures: Structures) -> Structures:
    """The same on the CPU in float64.

    Raises:
        UserError: they have no cell.
    """
    structures = structures.to(torch.device("cpu"))
    if structures.cell is None:
        raise UserError("a relaxation of crystals got structures without a cell")
    mask = structures.mask.bool()
    return Structures(structures.numbers, structures.positions.double(), mask, structures.cell.double())


def _size(vectors: Tensor) -> Tensor:
    """Length of all coordinates of each crystal together, (R, 1, 1)."""
    size: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2), keepdim=True)
    return size
