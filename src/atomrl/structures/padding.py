"""Structures of different sizes as one padded batch, and lots that need little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from atomrl.core.records import Structures
from atomrl.structures.molecules import Geometry


def alike(sizes: Sequence[int], most_pairs: int) -> Iterator[list[int]]:
    """Places of structures of about the same size, so many at a time that padded they have these pairs at most.

    Args:
        sizes: atoms of each.
        most_pairs: in a lot; one structure alone may have more.
    """
    lot: list[int] = []
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        if lot and (len(lot) + 1) * sizes[place] ** 2 > most_pairs:
            yield lot
            lot = []
        lot.append(place)
    if lot:
        yield lot


def lots(structures: Structures, most_pairs: int) -> list[tuple[list[int], Structures]]:
    """Structures in lots as of `alike`, each with the places of its structures and no wider than the largest needs."""
    found = []
    for places in alike(structures.sizes.tolist(), most_pairs):
        part = structures[torch.tensor(places, device=structures.numbers.device)]
        used = part.mask.any(0).nonzero()
        atoms = slice(0, int(used.max()) + 1 if len(used) else 1)
        found.append(
            (places, Structures(part.numbers[:, atoms], part.positions[:, atoms], part.mask[:, atoms], part.cell))
        )
    return found


def join(geometries: Sequence[Geometry], dtype: torch.dtype = torch.float64) -> Structures:
    """Unpadded arrays as one batch, in order, padded to the largest; positions of this type."""
    widest = max((len(geometry.numbers) for geometry in geometries), default=0)
    numbers = torch.zeros(len(geometries), widest, dtype=torch.int64)
    positions = torch.zeros(len(geometries), widest, 3, dtype=dtype)
    for row, (kinds, places) in enumerate(geometries):
        numbers[row, : len(kinds)] = torch.as_tensor(kinds)
        positions[row, : len(kinds)] = torch.as_tensor(places, dtype=dtype)
    return Structures(numbers, positions, numbers > 0)


def replace_rows(structures: Structures, rows: Sequence[int], by: Structures) -> Structures:
    """Crystals with some of them replaced by others of the same sizes."""
    places = torch.tensor(list(rows), dtype=torch.int64)
    if not len(places) or structures.cell is None or by.cell is None:
        return structures
    width = by.numbers.shape[1]
    numbers, positions, cell = structures.numbers.clone(), structures.positions.clone(), structures.cell.clone()
    numbers[places, :width] = by.numbers.to(numbers)
    positions[places, :width] = by.positions.to(positions)
    cell[places] = by.cell.to(cell)
    return Structures(numbers, positions, structures.mask, cell)
