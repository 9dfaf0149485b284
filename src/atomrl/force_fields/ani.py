"""ANI-1x, a second judge of molecules: eight networks that learned DFT, not xTB, and that no training of ours sees.

Source: Smith et al. 2018, doi 10.1063/1.5023802 (wB97X/6-31G*); the weights ship in the package `torchani`. It knows
H, C, N and O. Near minima its forces agree with GFN2-xTB's; far from them they saturate near 10 eV/Å, so that it cannot
rank bad samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.units import Hartree
from torch.nn.utils.rnn import pad_sequence

from atomrl.force_fields.base import ForceFieldSpec
from atomrl.force_fields.molecules import MoleculeForceField
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra
from atomrl.workers.executor import Outcome

with extra("ani"):
    import torchani

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from atomrl.structures.molecules import Geometry

NAME = "ANI-1x"
ELEMENTS = frozenset({1, 6, 7, 8})

PADDING = -1
"""Atomic number of an atom that is not there."""


class ANIForceField(MoleculeForceField):
    """Energies and forces of neutral molecules, batched in this process.

    Reason of failure besides those of the checks: `nonfinite_result`. The networks know nothing of electrons.

    Args:
        batch_size: molecules evaluated together.
        device: e.g. `cuda`; `auto` takes a GPU if there is one.

    Raises:
        UserError: an impossible number, or the extra `ani` is not installed.
    """

    def __init__(self, batch_size: int = 64, device: str = "auto") -> None:
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        super().__init__(NAME, ELEMENTS, Batches(batch_size, choose_device(device)))


@dataclass(frozen=True)
class Batches:
    """Implements `molecules.Computes`.

    Attributes:
        size: molecules evaluated together.
        device: where.
    """

    size: int
    device: torch.device

    def map(self, items: Sequence[Any]) -> list[Outcome]:
        """Outcomes of geometries, in order."""
        starts = range(0, len(items), self.size)
        return [outcome for start in starts for outcome in self._batch(items[start : start + self.size])]

    def close(self) -> None:
        """There is nothing to give back."""

    def _batch(self, geometries: Sequence[Geometry]) -> list[Outcome]:
        """Outcomes of some, as one batch."""
        numbers = pad_sequence([torch.from_numpy(g.numbers).long() for g in geometries], True, PADDING)
        positions = pad_sequence([torch.from_numpy(g.positions).float() for g in geometries], True)
        positions = positions.to(self.device).requires_grad_()
        with torch.enable_grad():
            energies = load_model(self.device)((numbers.to(self.device), positions)).energies
            (slopes,) = torch.autograd.grad(energies.sum(), positions)
        rows = zip(geometries, energies.double().tolist(), (-slopes).double().cpu().numpy(), strict=True)
        return [_outcome(energy, forces[: len(geometry.numbers)]) for geometry, energy, forces in rows]


@cache
def load_model(device: torch.device) -> torch.nn.Module:
    """The eight networks and their mean."""
    model: torch.nn.Module = torchani.models.ANI1x(periodic_table_index=True).to(device).requires_grad_(False).eval()
    return model


def _outcome(energy: float, forces: NDArray[np.float64]) -> Outcome:
    """A result in eV and eV/Å, or `nonfinite_result`."""
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return Outcome(None, "nonfinite_result")
    return Outcome((energy * Hartree, forces * Hartree), None)


SPEC = ForceFieldSpec(NAME, lambda settings: ANIForceField())
