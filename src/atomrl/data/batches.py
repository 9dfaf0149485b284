"""Batches of molecules of nearly equal size, each a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from atomrl.core.records import Structures
from atomrl.data.qm9 import MoleculeSet, load_qm9, split
from atomrl.data.sized import sized_rows

T = TypeVar("T")


@dataclass(frozen=True)
class MoleculeBatch:
    """Padded molecules.

    Attributes:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Å, (B, N, 3) float32, 0 where padded.
        mask: (B, N) float32.
        step: global number of this batch, the key of its randomness.
        properties: {name: (B,) float64}, those of the set.
    """

    numbers: Tensor
    positions: Tensor
    mask: Tensor
    step: int
    properties: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device, non_blocking: bool = False) -> MoleculeBatch:
        """The same batch on a device."""
        numbers, positions, mask = (
            tensor.to(device, non_blocking=non_blocking) for tensor in (self.numbers, self.positions, self.mask)
        )
        properties = {name: values.to(device, non_blocking=non_blocking) for name, values in self.properties.items()}
        return MoleculeBatch(numbers, positions, mask, self.step, properties)


def pad(molecules: MoleculeSet, step: int = 0) -> MoleculeBatch:
    """Pad molecules to the largest among them."""
    sizes = molecules.sizes
    mask = np.arange(sizes.max())[None, :] < sizes[:, None]
    numbers = np.zeros(mask.shape, dtype=np.int64)
    positions = np.zeros((*mask.shape, 3), dtype=np.float32)
    numbers[mask], positions[mask] = molecules.numbers, molecules.positions
    properties = {name: torch.from_numpy(values) for name, values in molecules.properties.items()}
    return MoleculeBatch(
        torch.from_numpy(numbers),
        torch.from_numpy(positions),
        torch.from_numpy(mask.astype(np.float32)),
        step,
        properties,
    )


def padded_batches(molecules: MoleculeSet, size: int) -> Iterator[Structures]:
    """The whole set in padded batches of at most `size` molecules of nearly equal size, smaller molecules first."""
    order = np.argsort(molecules.sizes, kind="stable")
    for start in range(0, len(order), size):
        batch = pad(molecules.select(order[start : start + size]))
        yield Structures(batch.numbers, batch.positions, batch.mask.bool())


def training_molecules(count: int, seed: int) -> Structures:
    """So many of QM9's training molecules, drawn by a seed, in their own geometry.

    Raises:
        UserError: as `load_qm9`.
    """
    known = split(load_qm9())["train"]
    rows = np.random.Generator(np.random.PCG64(seed)).permutation(len(known))[:count]
    batch = pad(known.select(rows))
    return Structures(batch.numbers, batch.positions, batch.mask.bool())


class Listed(Dataset[T]):
    """A list as a data set."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> T:
        return self.items[row]


class SizedBatches(IterableDataset[MoleculeBatch]):
    """Endless stream of batches, from any step on; see `sized_rows`."""

    def __init__(self, molecules: MoleculeSet, batch_size: int, seed: int, first_step: int = 0) -> None:
        self.molecules, self.batch_size, self.seed, self.first_step = molecules, batch_size, seed, first_step

    def __iter__(self) -> Iterator[MoleculeBatch]:
        for step, rows in sized_rows(self.molecules.sizes, self.batch_size, self.seed, self.first_step):
            yield pad(self.molecules.select(rows), step)
