"""ANI-1x, a reward and a second judge of molecules: eight networks that learned DFT, not xTB.

Source: Smith et al. 2018, doi 10.1063/1.5023802 (wB97X/6-31G*); the weights ship in the package `torchani`. It knows
H, C, N and O. Near minima its forces agree with GFN2-xTB's; far from them they saturate near 10 eV/Å, so that it cannot
rank bad samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from ase.units import Hartree
from torch.nn.utils.rnn import pad_sequence

from atomrl.force_fields.base import Computed, ForceFieldSpec
from atomrl.force_fields.batches import Batches
from atomrl.force_fields.molecules import MoleculeForceField
from atomrl.util.device import choose_device
from atomrl.util.optional_imports import extra

with extra("ani"):
    import torchani

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        super().__init__(NAME, ELEMENTS, Batches(batch_size, partial(compute, device=choose_device(device))))

    def atom_energies(self) -> Mapping[str, float]:
        """Energies per element that the authors fitted to their data and subtract from it, {symbol: eV}."""
        energies = torchani.models.ANI1x().energy_shifter.self_energies
        return {symbol: float(energy) * Hartree for symbol, energy in zip("HCNO", energies, strict=True)}


def compute(geometries: Sequence[Geometry], device: torch.device) -> list[Computed]:
    """Energies and forces of some molecules, as one batch."""
    numbers = pad_sequence([torch.from_numpy(g.numbers).long() for g in geometries], True, PADDING)
    positions = pad_sequence([torch.from_numpy(g.positions).float() for g in geometries], True)
    positions = positions.to(device).requires_grad_()
    with torch.enable_grad():
        energies = load_model(device)((numbers.to(device), positions)).energies
        (slopes,) = torch.autograd.grad(energies.sum(), positions)
    rows = zip(geometries, energies.double().tolist(), (-slopes).double().cpu().numpy(), strict=True)
    return [Computed(energy * Hartree, forces[: len(geometry.numbers)] * Hartree) for geometry, energy, forces in rows]


@cache
def load_model(device: torch.device) -> torch.nn.Module:
    """The eight networks and their mean."""
    model: torch.nn.Module = torchani.models.ANI1x(periodic_table_index=True).to(device).requires_grad_(False).eval()
    return model


def _make(settings: Mapping[str, Any], batch_size: int = 64) -> ANIForceField:
    """Out of a configuration."""
    return ANIForceField(batch_size, settings["device"])


SPEC = ForceFieldSpec(NAME, _make)
