"""A few real molecules that a reward or a force field is tried on."""

from __future__ import annotations

from typing import Any

import torch
from ase.build import molecule

from atomrl.core.records import Prompts, Structures
from atomrl.structures.molecules import Geometry
from atomrl.structures.padding import join

GROUPS = (
    ("H2O", "HCN", "CO2", "N2O"),
    ("NH3", "H2CO", "C2H2", "H2O2"),
    ("CH4", "HCOOH", "H2CCO", "H2CF2"),
    ("CH3CH2OH", "CH3OCH3", "C3H6_D3h", "CH3CONH2"),
)
"""Molecules of 3, 4, 5 and 9 atoms of ASE's collection of measured and computed geometries (G2)."""


def example_molecules(per_group: int = 4, seed: int = 0) -> tuple[Structures, Prompts]:
    """Four groups of different molecules of one size each, atoms moved by 0.05 Å.

    Args:
        per_group: samples of each, at most 4.
        seed: of the displacements.
    """
    draw, parts = torch.Generator().manual_seed(seed), []
    for name in (name for group in GROUPS for name in group[:per_group]):
        atoms: Any = molecule(name)  # type: ignore[no-untyped-call]
        places = torch.from_numpy(atoms.positions).double()
        moved = places + 0.05 * torch.randn(len(atoms), 3, generator=draw, dtype=torch.float64)
        parts.append(Geometry(atoms.numbers, moved.numpy()))
    structures = join(parts)
    groups = torch.arange(len(GROUPS)).repeat_interleave(per_group)
    return structures, Prompts(seed, 0, structures.sizes, groups, torch.arange(len(groups)))
