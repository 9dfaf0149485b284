"""Molecules of different sizes as one padded batch: what `molecules.split` takes apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atomrl.core.records import Structures
from atomrl.structures.molecules import Geometry


def join(geometries: Sequence[Geometry], dtype: torch.dtype = torch.float64) -> Structures:
    """Unpadded arrays as one batch, in order, padded to the largest; positions of this type."""
    widest = max((len(geometry.numbers) for geometry in geometries), default=0)
    numbers = torch.zeros(len(geometries), widest, dtype=torch.int64)
    positions = torch.zeros(len(geometries), widest, 3, dtype=dtype)
    for row, (kinds, places) in enumerate(geometries):
        numbers[row, : len(kinds)] = torch.as_tensor(kinds)
        positions[row, : len(kinds)] = torch.as_tensor(places, dtype=dtype)
    return Structures(numbers, positions, numbers > 0)
