"""Crystals as padded tensors of fractional coordinates, and cells as lengths and angles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atomrl.core.records import Structures


@dataclass(frozen=True)
class CrystalTensors:
    """Crystals as the VAE sees them.

    Attributes:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        frac_coords: fractional coordinates, (B, N, 3).
        cell: lattice vectors in rows, Å, (B, 3, 3).
        mask: real atoms, (B, N), bool or 0 and 1.
    """

    numbers: Tensor
    frac_coords: Tensor
    cell: Tensor
    mask: Tensor

    @classmethod
    def of(cls, structures: Structures) -> CrystalTensors:
        """Crystals with their Cartesian positions turned into fractional coordinates (not wrapped).

        A crystal whose cell is singular has none: they are NaN.

        Raises:
            ValueError: the structures are molecules.
        """
        if structures.cell is None:
            raise ValueError("these structures have no cell: the crystal VAE encodes crystals only")
        frac_coords, info = torch.linalg.solve_ex(structures.cell, structures.positions, left=False)
        frac_coords = torch.where(info[:, None, None] == 0, frac_coords, torch.nan)
        return cls(structures.numbers, frac_coords, structures.cell, structures.mask)

    def to(self, device: torch.device, non_blocking: bool = False) -> CrystalTensors:
        """The same batch on a device."""
        numbers, frac_coords, cell, mask = (
            tensor.to(device, non_blocking=non_blocking)
            for tensor in (self.numbers, self.frac_coords, self.cell, self.mask)
        )
        return CrystalTensors(numbers, frac_coords, cell, mask)


def cell_from_parameters(lengths: Tensor, angles: Tensor) -> Tensor:
    """Lattice vectors in rows, oriented as by pymatgen's `Lattice.from_parameters`: c along z, a in the xz plane.

    Args:
        lengths: a, b, c in Å, (B, 3).
        angles: alpha, beta, gamma in radians, (B, 3).

    Returns:
        Å, (B, 3, 3), in the dtype of the lengths; computed in float64, since flat cells lose digits.
    """
    a, b, c = lengths.double().unbind(-1)
    cos_alpha, cos_beta, cos_gamma = angles.double().cos().unbind(-1)
    sin_alpha, sin_beta, _ = angles.double().sin().unbind(-1)
    cos_star = ((cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)).clamp(-1, 1)
    sin_star = (1 - cos_star.square()).sqrt()
    zero = torch.zeros_like(a)
    rows = [
        torch.stack([a * sin_beta, zero, a * cos_beta], dim=-1),
        torch.stack([-b * sin_alpha * cos_star, b * sin_alpha * sin_star, b * cos_alpha], dim=-1),
        torch.stack([zero, zero, c], dim=-1),
    ]
    return torch.stack(rows, dim=1).to(lengths.dtype)


def cell_parameters(cell: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths a, b, c in Å and angles alpha, beta, gamma in radians of cells (B, 3, 3), (B, 3) each."""
    lengths = cell.norm(dim=-1)
    unit = cell / lengths[..., None]
    cosines = (unit[:, [1, 0, 0]] * unit[:, [2, 2, 1]]).sum(-1)
    return lengths, torch.acos(cosines.clamp(-1, 1))
