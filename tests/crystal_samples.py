"""Crystals that several test files use."""

import numpy as np
from pymatgen.core import Lattice, Structure

ROCK_SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CAESIUM_CHLORIDE = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
PEROVSKITE = Structure(
    Lattice.cubic(3.95),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
SILICON = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]]).get_primitive_structure()
TRICLINIC = Structure(
    Lattice.from_parameters(3.9, 4.4, 5.3, 72, 81, 101), ["Na", "Cl"], [[0.03, 0.01, 0], [0.52, 0.47, 0.55]]
)


def rattled(structure: Structure, size: float = 0.1) -> Structure:
    """A copy whose atoms are off their places by up to `size` Å."""
    moves = np.random.default_rng(0).uniform(-size, size, (len(structure), 3))
    return Structure(structure.lattice, structure.species, structure.cart_coords + moves, coords_are_cartesian=True)
