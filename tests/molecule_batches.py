"""Molecules of ASE as a batch, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import Atoms

from atomrl.core.records import Structures
from atomrl.structures.molecules import Geometry
from atomrl.structures.padding import join


def from_atoms(molecules: Sequence[Atoms], dtype: torch.dtype = torch.float64) -> Structures:
    """Padded to the largest, with positions of this type."""
    return join([Geometry(atoms.numbers, atoms.positions) for atoms in molecules], dtype)
