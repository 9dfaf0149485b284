"""Batches of crystals of nearly equal size, augmented; each a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from atomrl.core.random import generator
from atomrl.data.packed_crystals import PackedCrystals
from atomrl.data.sized import sized_rows
from atomrl.structures.tensors import CrystalTensors, cell_from_parameters, cell_parameters

ORIGIN = 0.03
"""Fractional coordinate of a settled crystal's first atom: atoms at the usual fractions of the cell from it, 1/2, 1/3,
1/8 and so on, are then well inside the cell, and a small shift does not wrap them."""


@dataclass(frozen=True)
class CrystalBatch:
    """Padded crystals.

    Attributes:
        crystals: B of them.
        step: global number of this batch, the key of its randomness.
        properties: of the crystals, {name: (B,) float64}, NaN where unknown.
    """

    crystals: CrystalTensors
    step: int
    properties: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def mask(self) -> Tensor:
        """Real atoms, (B, N) float32."""
        return self.crystals.mask

    def to(self, device: torch.device, non_blocking: bool = False) -> CrystalBatch:
        """The same batch on a device."""
        properties = {name: values.to(device, non_blocking=non_blocking) for name, values in self.properties.items()}
        return CrystalBatch(self.crystals.to(device, non_blocking), self.step, properties)


def rotations(quaternions: Tensor) -> Tensor:
    """Rotation matrices (B, 3, 3) of quaternions (B, 4) of any length; normal ones give uniform rotations.

    Source: Shoemake 1992, doi 10.1016/B978-0-08-050755-2.50036-1.
    """
    w, x, y, z = (quaternions / quaternions.norm(dim=1, keepdim=True)).unbind(1)
    entries = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(entries, dim=1).reshape(-1, 3, 3)


def augment(crystals: CrystalTensors, seed: int, step: int) -> CrystalTensors:
    """Each crystal in another description: its lattice rotated, its atoms translated and wrapped into the cell.

    Lengths and angles of the cell, the VAE's targets, stay as they are. Rotation and translation are uniform, and
    depend on (seed, step) and the row alone.
    """
    rng = generator(crystals.cell.device, seed, step, "augmentation")
    count = len(crystals.cell)
    turned = rotations(torch.randn(count, 4, generator=rng, device=rng.device))
    shifts = torch.rand(count, 1, 3, generator=rng, device=rng.device)
    return _described(crystals, shifts, crystals.cell @ turned.transpose(1, 2))


def settle(crystals: CrystalTensors) -> CrystalTensors:
    """Each crystal in one fixed description: its first atom at `ORIGIN`, its lattice as `cell_from_parameters` puts it.

    Undoes `augment`. Which descriptions of a crystal a model generates does not matter to who uses it; a model that
    needs to know only one has less to learn.
    """
    shifts = ORIGIN - crystals.frac_coords[:, :1]
    return _described(crystals, shifts, cell_from_parameters(*cell_parameters(crystals.cell)))


def _described(crystals: CrystalTensors, shifts: Tensor, cell: Tensor) -> CrystalTensors:
    """The crystals with their atoms shifted (B, 1, 3) and wrapped, and their lattice as `cell` writes it."""
    wrapped = (crystals.frac_coords + shifts) % 1.0 * crystals.mask[..., None]
    return replace(crystals, frac_coords=wrapped, cell=cell)


def augmented(crystals: PackedCrystals, seed: int, step: int) -> CrystalBatch:
    """All of these crystals as one batch, augmented."""
    properties = {name: torch.from_numpy(values) for name, values in crystals.properties.items()}
    return CrystalBatch(augment(crystals.padded(), seed, step), step, properties)


class SizedCrystalBatches(IterableDataset[CrystalBatch]):
    """Endless stream of augmented batches, from any step on; see `sized_rows`.

    Args:
        crystals: the set.
        batch_size: crystals per batch.
        seed: of order and augmentation.
        first_step: number of the first batch.
    """

    def __init__(self, crystals: PackedCrystals, batch_size: int, seed: int, first_step: int = 0) -> None:
        self.crystals, self.batch_size, self.seed, self.first_step = crystals, batch_size, seed, first_step

    def __iter__(self) -> Iterator[CrystalBatch]:
        for step, rows in sized_rows(self.crystals.sizes, self.batch_size, self.seed, self.first_step):
            yield augmented(self.crystals.select(rows), self.seed, step)


def fixed_batches(crystals: PackedCrystals, batch_size: int, seed: int, count: int) -> list[CrystalBatch]:
    """The first `count` batches of a stream, for validation; a set smaller than a batch is one batch, again and again.

    Args:
        crystals: the set, not empty.
        batch_size: crystals per batch.
        seed: of order and augmentation.
        count: of batches.
    """
    stream = iter(SizedCrystalBatches(crystals, min(batch_size, len(crystals)), seed))
    return [next(stream) for _ in range(count)]
