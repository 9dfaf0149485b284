"""Batches of molecules of nearly equal size: little or no padding, order a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from atomrl.data.qm9 import MoleculeSet

T = TypeVar("T")


@dataclass(frozen=True)
class MoleculeBatch:
    """Padded molecules.

    Attributes:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Å, (B, N, 3) float32, 0 where padded.
        mask: (B, N) float32.
        step: global number of this batch, the key of its randomness.
    """

    numbers: Tensor
    positions: Tensor
    mask: Tensor
    step: int

    def to(self, device: torch.device, non_blocking: bool = False) -> MoleculeBatch:
        """The same batch on a device."""
        numbers, positions, mask = (
            tensor.to(device, non_blocking=non_blocking) for tensor in (self.numbers, self.positions, self.mask)
        )
        return MoleculeBatch(numbers, positions, mask, self.step)


def pad(molecules: MoleculeSet, step: int = 0) -> MoleculeBatch:
    """Pad molecules to the largest among them."""
    sizes = molecules.sizes
    mask = np.arange(sizes.max())[None, :] < sizes[:, None]
    numbers = np.zeros(mask.shape, dtype=np.int64)
    positions = np.zeros((*mask.shape, 3), dtype=np.float32)
    numbers[mask], positions[mask] = molecules.numbers, molecules.positions
    return MoleculeBatch(
        torch.from_numpy(numbers), torch.from_numpy(positions), torch.from_numpy(mask.astype(np.float32)), step
    )


class Listed(Dataset[T]):
    """A list as a data set."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> T:
        return self.items[row]


class SizedBatches(IterableDataset[MoleculeBatch]):
    """Endless stream of batches, from any step on: epoch after epoch, each sorted by size and cut, then shuffled."""

    def __init__(self, molecules: MoleculeSet, batch_size: int, seed: int, first_step: int = 0) -> None:
        self.molecules, self.batch_size, self.seed, self.first_step = molecules, batch_size, seed, first_step

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the data."""
        return len(self.molecules) // self.batch_size

    def __iter__(self) -> Iterator[MoleculeBatch]:
        epoch, skip = divmod(self.first_step, self.steps_per_epoch)
        while True:
            for step, rows in enumerate(self._epoch(epoch)):
                if step >= skip:
                    yield pad(self.molecules.select(rows), epoch * self.steps_per_epoch + step)
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """Rows of each batch of an epoch, (steps, batch_size)."""
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = rng.permutation(len(self.molecules))[: self.steps_per_epoch * self.batch_size]
        order = order[np.argsort(self.molecules.sizes[order], kind="stable")]
        return rng.permutation(order.reshape(-1, self.batch_size))
