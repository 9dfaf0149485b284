"""What the core builds on in a force field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.core.protocols import ForceField, Result
from atomrl.core.records import Structures


def check_force_field(
    force_field: ForceField, structures: Structures, step: float = 1e-4, tolerance: float = 0.02
) -> None:
    """Check that forces are slopes of the energy, and that neither order, orientation nor company of atoms matters.

    Structures without a result are left out.

    Args:
        force_field: gives energies and forces.
        structures: of which at least one has a result.
        step: Å, of the central differences; 2e-3 for a network in float32.
        tolerance: eV/Å, and eV, beside 1 % of a slope.
    """
    results = force_field.evaluate(structures)
    assert len(results) == len(structures), f"{len(results)} results for {len(structures)} structures"
    known = [row for row, result in enumerate(results) if result.reason is None]
    assert known, f"no structure has a result: {results[0].reason if results else 'there is none'}"
    found = [results[row] for row in known]
    for row, result in zip(known, found, strict=True):
        assert result.forces is not None, f"structure {row}: its result has no forces, eV/Å"
    sound = structures[torch.tensor(known, device=structures.numbers.device)]
    _check_slopes(force_field, sound, found, step, tolerance)
    for row in range(len(sound)):
        what = f"structure {known[row]} alone"
        _same_result(force_field.evaluate(sound[row : row + 1])[0], found[row], what, tolerance)
    _check_order(force_field, sound, found, tolerance)
    _check_orientation(force_field, sound, found, tolerance)


def check_crystal_force_field(
    force_field: ForceField, structures: Structures, step: float = 1e-4, tolerance: float = 0.02
) -> None:
    """Check what `check_force_field` does; the stress, by finite differences; and that two cells have twice the energy.

    Args:
        force_field: gives energies of the cell, forces, and `stress`, (dE/dstrain) / volume in eV/Å³, (3, 3).
        structures: with cells; of which at least one has a result.
        step: Å, and of the strain; 2e-3 for a network in float32.
        tolerance: eV/Å, eV, and eV per unit of strain, beside 1 % of a slope.
    """
    check_force_field(force_field, structures, step, tolerance)
    results = force_field.evaluate(structures)
    known = [row for row, result in enumerate(results) if result.reason is None]
    sound = structures[torch.tensor(known, device=structures.numbers.device)]
    found = [results[row] for row in known]
    _check_stress(force_field, sound, found, step, tolerance)
    _check_supercells(force_field, sound, found, tolerance)


def _check_stress(
    force_field: ForceField, structures: Structures, results: Sequence[Result], step: float, tolerance: float
) -> None:
    """Of each crystal: along a stretch and along a shear, with the atoms carried along."""
    assert structures.cell is not None
    cell = structures.cell.double().cpu()
    volumes = torch.linalg.det(cell).abs().tolist()
    for name, (row, column) in {"stretch along z": (2, 2), "shear in the plane of x and y": (0, 1)}.items():
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[row, column] += step / 2
        strain[column, row] += step / 2
        ends = []
        for sign in (1, -1):
            matrix = torch.eye(3, dtype=torch.float64) + sign * strain
            positions = structures.positions @ matrix.to(structures.positions)
            moved = replace(structures, positions=positions, cell=structures.cell @ matrix.to(structures.cell))
            ends.append(force_field.evaluate(moved))
        for number, (result, up, down, volume) in enumerate(zip(results, *ends, volumes, strict=True)):
            numerical = (up.energy - down.energy) / (2 * step)
            assert hasattr(result, "stress"), f"crystal {number}: its result has no stress"
            said = float(volume * (strain.numpy() * result.stress).sum() / step)
            assert abs(numerical - said) < max(tolerance, 0.01 * abs(numerical)), (
                f"crystal {number}: {name} changes the energy by {said:.4f} eV per unit by its stress, finite "
                f"differences say {numerical:.4f}"
            )


def _check_supercells(
    force_field: ForceField, structures: Structures, results: Sequence[Result], tolerance: float
) -> None:
    """Each cell twice along its first vector: twice the energy, and on each copy the same forces."""
    assert structures.cell is not None
    cell = structures.cell.clone()
    cell[:, 0] *= 2
    doubled = Structures(
        torch.cat([structures.numbers] * 2, 1),
        torch.cat([structures.positions, structures.positions + structures.cell[:, :1]], 1),
        torch.cat([structures.mask] * 2, 1),
        cell,
    )
    for number, (result, twice) in enumerate(zip(results, force_field.evaluate(doubled), strict=True)):
        expected = Expected(2 * result.energy, np.concatenate([result.forces] * 2))
        _same_result(twice, expected, f"crystal {number} in a cell of twice the length", tolerance)


def _check_slopes(
    force_field: ForceField, structures: Structures, results: Sequence[Result], step: float, tolerance: float
) -> None:
    """Of each structure: the force on its first atom along x, and all forces along one direction of all atoms."""
    draw = torch.Generator().manual_seed(0)
    every = torch.randn(structures.positions.shape, generator=draw, dtype=torch.float64)
    every = every.to(structures.positions) * structures.mask[..., None]
    every = every / torch.linalg.vector_norm(every, dim=(1, 2), keepdim=True)
    first = torch.zeros_like(every)
    first[torch.arange(len(structures)), structures.mask.int().argmax(1), 0] = 1.0
    for name, direction in (("on the first atom along x", first), ("along a direction of all atoms", every)):
        moved = [
            force_field.evaluate(replace(structures, positions=structures.positions + sign * step * direction))
            for sign in (1, -1)
        ]
        for row, (result, up, down) in enumerate(zip(results, *moved, strict=True)):
            numerical = -(up.energy - down.energy) / (2 * step)
            said = float((direction[row][structures.mask[row]].cpu().double().numpy() * result.forces).sum())
            assert abs(numerical - said) < max(tolerance, 0.01 * abs(numerical)), (
                f"structure {row}: force {name} {said:.4f} eV/Å, finite differences say {numerical:.4f}"
            )


def _check_order(force_field: ForceField, structures: Structures, results: Sequence[Result], tolerance: float) -> None:
    """The atoms the other way round: forces go with them."""
    turned = Structures(
        structures.numbers.flip(1), structures.positions.flip(1), structures.mask.flip(1), structures.cell
    )
    for row, (result, other) in enumerate(zip(results, force_field.evaluate(turned), strict=True)):
        expected = Expected(result.energy, result.forces[::-1])
        _same_result(other, expected, f"structure {row} with its atoms in another order", tolerance)


def _check_orientation(
    force_field: ForceField, structures: Structures, results: Sequence[Result], tolerance: float
) -> None:
    """All turned by one rotation: forces turn with them."""
    draw = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=draw, dtype=torch.float64))
    rotation = rotation * torch.linalg.det(rotation)
    matrix = rotation.to(structures.positions)
    cell = None if structures.cell is None else structures.cell @ matrix.to(structures.cell)
    turned = replace(structures, positions=structures.positions @ matrix, cell=cell)
    for row, (result, other) in enumerate(zip(results, force_field.evaluate(turned), strict=True)):
        expected = Expected(result.energy, result.forces @ rotation.numpy())
        _same_result(other, expected, f"structure {row} rotated", tolerance)


class Expected(NamedTuple):
    """What a result should be: eV and eV/Å."""

    energy: float
    forces: NDArray[np.float64]


def _same_result(result: Result, expected: Expected | Result, what: str, tolerance: float) -> None:
    """Raise if a result differs from what is expected, by more than a tolerance in eV and eV/Å."""
    assert result.reason is None, f"{what}: {result.reason}"
    energies, forces = abs(result.energy - expected.energy), float(np.abs(result.forces - expected.forces).max())
    assert energies <= tolerance, f"{what}: the energy differs by {energies:.2e} eV"
    assert forces <= tolerance, f"{what}: a force differs by {forces:.2e} eV/Å"
