"""Molecules for the tests of force fields: near a minimum, of different sizes, H, C, N and O."""

from collections.abc import Sequence

import numpy as np
from ase.build import molecule
from molecule_batches import from_atoms

from atomrl.core.records import Structures

NAMES = ["H2O", "CH4", "CH3CH2OH", "NH3", "C6H6"]


def rattled(names: Sequence[str] = NAMES, size: float = 0.08) -> Structures:
    """With atoms moved by about this far, Å."""
    rng = np.random.default_rng(0)
    atoms = [molecule(name) for name in names]
    for one in atoms:
        one.positions += size * rng.standard_normal(one.positions.shape)
    return from_atoms(atoms)
