"""Molecules in batches, by a network in this process or by a task that takes several at once.

Worker processes of other environments import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from atomrl.force_fields.base import NONFINITE, Computed
from atomrl.structures.molecules import Geometry
from atomrl.util.errors import UserError
from atomrl.workers.executor import Executor, Outcome

Arrays = tuple[Any, Any, Any]
"""A crystal as a task of another environment gets it: numbers (N,), fractional coordinates (N, 3), lattice (3, 3)."""


@dataclass(frozen=True)
class Batches:
    """By a network in this process; implements `molecules.Computes`.

    Attributes:
        size: molecules evaluated together.
        compute: energies (eV) and forces (eV/Å) of at most so many, in order.

    Raises:
        UserError: the size is below 1.
    """

    size: int
    compute: Callable[[Sequence[Geometry]], Sequence[Computed]]

    def __post_init__(self) -> None:
        require_size(self.size)

    def map(self, items: Sequence[Any]) -> list[Outcome]:
        """Outcomes of geometries, in order; `nonfinite_result` for NaN and infinity."""
        starts = range(0, len(items), self.size)
        return [_outcome(one) for start in starts for one in self.compute(items[start : start + self.size])]

    def close(self) -> None:
        """There is nothing to give back."""


@dataclass(frozen=True)
class Lots:
    """By a task of workers that takes a list of geometries; implements `molecules.Computes`.

    Attributes:
        size: molecules evaluated together.
        executor: of the task, which returns a `Computed` for each.

    Raises:
        UserError: the size is below 1.
    """

    size: int
    executor: Executor

    def __post_init__(self) -> None:
        require_size(self.size)

    def map(self, items: Sequence[Any]) -> list[Outcome]:
        """As of `Batches`, and with the reasons of the workers."""
        outcomes = self.executor.map_lots(items, self.size)
        return [outcome if outcome.reason else _outcome(Computed(*outcome.value)) for outcome in outcomes]

    def close(self) -> None:
        """End the workers."""
        self.executor.close()


def by_molecule(energies: Any, forces: Any, sizes: Sequence[int]) -> list[tuple[float, Any]]:
    """Energy and forces of each molecule, out of a batch's tensors (B,) and (atoms of all, 3)."""
    parts = forces.detach().cpu().double().split(list(sizes))
    numbers = energies.detach().cpu().double().tolist()
    return list(zip(numbers, [part.numpy() for part in parts], strict=True))


def periodic(crystals: Sequence[Arrays]) -> list[Atoms]:
    """Crystals as ASE has them."""
    return [
        Atoms(numbers, scaled_positions=frac_coords, cell=lattice, pbc=True)
        for numbers, frac_coords, lattice in crystals
    ]


def by_crystal(output: Mapping[str, Any], sizes: Sequence[int], gradients: bool) -> list[tuple[float, Any, Any]]:
    """Energy, forces and stress of each crystal, out of a batch's tensors; the last two are None if not asked for."""
    if not gradients:
        return [(energy, None, None) for energy in output["energy"].detach().cpu().double().tolist()]
    stresses = output["stress"].detach().cpu().double().reshape(-1, 3, 3).numpy()
    pairs = by_molecule(output["energy"], output["forces"], sizes)
    return [(energy, forces, stress) for (energy, forces), stress in zip(pairs, stresses, strict=True)]


def require_size(size: int) -> None:
    """Raise UserError for a batch that holds nothing."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(f"batch_size must be a whole number from 1, got {size!r}")


def _outcome(computed: Computed) -> Outcome:
    """What was computed, or `nonfinite_result`."""
    finite = np.isfinite(computed.energy) and np.isfinite(computed.forces).all()
    return Outcome(computed, None) if finite else Outcome(None, NONFINITE)
