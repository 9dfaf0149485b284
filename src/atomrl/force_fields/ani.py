"""ANI-1x, a second judge of molecules: eight networks that learned DFT, not xTB, and that no training of ours sees.

Source: Smith et al. 2018, doi 10.1063/1.5023802 (wB97X/6-31G*); the weights ship in the package `torchani`. It knows
H, C, N and O. Near minima its forces agree with GFN2-xTB's; far from them they saturate near 10 eV/Å, so that it cannot
rank bad samples.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.units import Hartree
from torch.nn.utils.rnn import pad_sequence

from atomrl.force_fields.base import Evaluation, ForceFieldSpec
from atomrl.structures.molecules import ODD_ELECTRONS, Geometry, check_geometries, odd_electrons, split
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra

with extra("ani"):
    import torchani

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomrl.core.records import Structures

NAME = "ANI-1x"
ELEMENTS = frozenset({1, 6, 7, 8})

PADDING = -1
"""Atomic number of an atom that is not there."""


class ANIForceField:
    """Energies and forces of neutral molecules, batched in this process; implements `protocols.ForceField`.

    Geometries are checked first, as for xTB. Reason of failure besides those of the check: `nonfinite_result`. An odd
    number of electrons is a flag; the networks know nothing of electrons.

    Args:
        batch_size: molecules evaluated together.
        device: e.g. `cuda`; `auto` takes a GPU if there is one.

    Raises:
        UserError: an impossible number, or the extra `ani` is not installed.
    """

    elements = ELEMENTS

    def __init__(self, batch_size: int = 64, device: str = "auto") -> None:
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        self._batch_size, self._device = batch_size, choose_device(device)

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        """Energy (eV) and forces (eV/Å) of each structure, in order.

        Raises:
            UserError: the structures are periodic.
        """
        if structures.cell is not None:
            raise UserError(
                f"{NAME} evaluates molecules, got structures with a cell: choose a force field for crystals"
            )
        geometries, reasons = split(structures), check_geometries(structures, self.elements)
        sound = [geometry for geometry, reason in zip(geometries, reasons, strict=True) if reason is None]
        starts = range(0, len(sound), self._batch_size)
        results = iter([result for start in starts for result in self._batch(sound[start : start + self._batch_size])])
        return [
            next(results) if reason is None else Evaluation.failed(len(geometry.numbers), reason, _flags(geometry))
            for geometry, reason in zip(geometries, reasons, strict=True)
        ]

    def close(self) -> None:
        """It holds nothing that would have to be given back."""

    def _batch(self, geometries: Sequence[Geometry]) -> list[Evaluation]:
        """Results of molecules that passed the check."""
        numbers = pad_sequence([torch.from_numpy(g.numbers).long() for g in geometries], True, PADDING)
        positions = pad_sequence([torch.from_numpy(g.positions).float() for g in geometries], True)
        positions = positions.to(self._device).requires_grad_()
        with torch.enable_grad():
            energies = load_model(self._device)((numbers.to(self._device), positions)).energies
            (slopes,) = torch.autograd.grad(energies.sum(), positions)
        rows = zip(geometries, energies.double().tolist(), (-slopes).double().cpu().numpy(), strict=True)
        return [_checked(geometry, energy, forces[: len(geometry.numbers)]) for geometry, energy, forces in rows]


@cache
def load_model(device: torch.device) -> torch.nn.Module:
    """The eight networks and their mean."""
    model: torch.nn.Module = torchani.models.ANI1x(periodic_table_index=True).to(device).requires_grad_(False).eval()
    return model


def _checked(geometry: Geometry, energy: float, forces: Any) -> Evaluation:
    """A result in eV and eV/Å, or `nonfinite_result`."""
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return Evaluation.failed(len(geometry.numbers), "nonfinite_result", _flags(geometry))
    return Evaluation(energy * Hartree, forces * Hartree, None, _flags(geometry))


def _flags(geometry: Geometry) -> tuple[str, ...]:
    return (ODD_ELECTRONS,) if odd_electrons(geometry) else ()


SPEC = ForceFieldSpec(NAME, lambda settings: ANIForceField())
