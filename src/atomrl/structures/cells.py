"""The canonical form of a crystal. Runs in worker processes: no torch in here.

Source of the form: Xie et al. 2022, arXiv:2110.06197 (the field's data sets are read this way).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atomrl.util.optional_imports import extra
from atomrl.workers.failure import Failure

with extra("crystals"):
    from pymatgen.core import Lattice, Structure


SHORT, THIN = 0.1, 1e6
"""Å, of a lattice's shortest vector, and how many cells a cube of its longest one may hold: beyond these, a reduction
takes minutes or all memory. A polytype with c = 1000 Å has 2e5."""


class Crystal(NamedTuple):
    """One crystal without padding: a plain tuple of arrays, cheap to send to a worker.

    Attributes:
        numbers: atomic numbers, (N,) int64.
        frac_coords: fractional coordinates, (N, 3) float64.
        lattice: lattice vectors in rows, Å, (3, 3) float64.
    """

    numbers: NDArray[np.int64]
    frac_coords: NDArray[np.float64]
    lattice: NDArray[np.float64]


def canonical(structure: Structure) -> Structure:
    """The Niggli-reduced cell rebuilt from its lengths and angles, atoms in [0, 1) and in their order.

    Rebuilding fixes the orientation (pymatgen's: c along z, a in the x-z plane), so that six numbers say it all.

    Raises:
        Failure: `niggli`: the reduction of a degenerate cell does not end, or would take minutes or all memory.
    """
    lengths = np.linalg.norm(structure.lattice.lll_matrix, axis=1)
    if lengths.min() < SHORT or lengths.max() ** 3 > THIN * structure.volume:
        raise Failure(f"niggli: vectors of {lengths.min():.2g} to {lengths.max():.3g} Å span its lattice")
    try:
        reduced = structure.get_reduced_structure("niggli")
    except (ValueError, np.linalg.LinAlgError) as error:
        raise Failure("niggli") from error
    frac_coords = reduced.frac_coords % 1.0
    frac_coords[frac_coords == 1.0] = 0.0  # -1e-17 % 1.0 is 1.0
    return Structure(Lattice.from_parameters(*reduced.lattice.parameters), reduced.species, frac_coords)


def to_arrays(structure: Structure) -> Crystal:
    """An ordered pymatgen structure as plain arrays."""
    numbers = np.array([species.Z for species in structure.species], dtype=np.int64)
    return Crystal(numbers, np.array(structure.frac_coords), np.array(structure.lattice.matrix))
