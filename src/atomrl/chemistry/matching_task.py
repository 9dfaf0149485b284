"""What a worker process does for the matcher: reduce a crystal, compare reduced ones. No torch in here.

The verdicts are those of pymatgen's `StructureMatcher` (Ong et al. 2013, doi 10.1016/j.commatsci.2012.10.028) for pairs
of one reduced formula. Its own steps are taken on arrays instead of its `Structure`, whose sites are objects: copying
them is most of the time of `StructureMatcher.fit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

import numpy as np

from atomrl.chemistry.niggli import Crystal, to_arrays
from atomrl.extras import extra
from atomrl.force_fields.base import Failure

with extra("crystals"):
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.periodic_table import Element
    from pymatgen.core.structure import Structure
    from pymatgen.core.structure_matcher import StructureMatcher
    from pymatgen.util.coord_cython import is_coord_subset_pbc  # type: ignore[import-not-found]

PRIMITIVE_TOLERANCE = 0.25
"""Å, with which `StructureMatcher` looks for a smaller cell."""


class Compare(NamedTuple):
    """Pairs of reduced crystals: does any of them match?

    Attributes:
        pairs: of one reduced formula and equal numbers of atoms; compared in order until one matches.
        ltol: tolerance of lengths, relative.
        stol: tolerance of sites, in units of (volume / atoms)^(1/3).
        angle_tol: tolerance of angles, degrees.
    """

    pairs: Sequence[tuple[Crystal, Crystal]]
    ltol: float
    stol: float
    angle_tol: float


def run(item: Crystal | Compare) -> Crystal | bool:
    """Reduce a crystal, or compare reduced ones.

    Raises:
        Failure: `reduction`: no reduced cell can be found.
    """
    if isinstance(item, Compare):
        return any(fits(*pair, item.ltol, item.stol, item.angle_tol) for pair in item.pairs)
    return reduce(item)


def reduce(crystal: Crystal) -> Crystal:
    """The Niggli-reduced primitive cell that `StructureMatcher` compares, atoms in its order.

    Raises:
        Failure: `reduction`.
    """
    try:
        lattice = Lattice(crystal.lattice)
        reduced = lattice.get_niggli_reduced_lattice()
        frac_coords = crystal.frac_coords
        if reduced != lattice:
            frac_coords = reduced.get_fractional_coords(lattice.get_cartesian_coords(frac_coords)) % 1.0
            lattice = reduced
        crystal = Crystal(crystal.numbers, frac_coords, np.array(lattice.matrix))
        if not may_be_supercell(crystal):
            return crystal
        species = [Element.from_Z(number) for number in crystal.numbers.tolist()]
        return to_arrays(Structure(lattice, species, frac_coords).get_primitive_structure(PRIMITIVE_TOLERANCE))
    except (ValueError, np.linalg.LinAlgError) as error:
        raise Failure("reduction") from error


def may_be_supercell(crystal: Crystal) -> bool:
    """False if `get_primitive_structure` cannot find a smaller cell; a fraction of its cost.

    It looks for cells smaller by a factor that divides every element's number of atoms, with lattice vectors near
    (tolerance / length) to translations that take each atom near (twice that) to one of its kind. If the identity is
    the only such translation, a fraction of a lattice vector, at least 1 / atoms, would have to be near to 0.
    """
    numbers = crystal.numbers
    units = gcd(*Counter(numbers.tolist()).values())
    tolerance = PRIMITIVE_TOLERANCE / np.linalg.norm(crystal.lattice, axis=1)
    if units == 1:
        return False
    if tolerance.max() * units >= 1:
        return True
    kinds = sorted(set(numbers.tolist()), key=lambda number: str(Element.from_Z(number).symbol))  # pymatgen's order
    groups = [crystal.frac_coords[numbers == number] for number in kinds]
    smallest = min(groups, key=len)
    translations = (smallest - smallest[0])[1:]
    for group in groups:
        between = group[None] - group[:, None]
        offset = translations[:, None, None] - between[None]
        near = (np.abs(offset - np.round(offset)) <= 2 * tolerance * (1 + 1e-9) + 1e-12).all(3)
        translations = translations[near.any(2).all(1)]
    return len(translations) > 0


def fits(first: Crystal, second: Crystal, ltol: float, stol: float, angle_tol: float) -> bool:
    """Whether `StructureMatcher.fit` calls two reduced crystals equal.

    Its steps: both cells at their mean volume (geometric); each basis of the first lattice that is near the second
    lattice; each translation that puts a first-kind atom onto one of the second; all atoms within the tolerance; the
    translation made best; the largest distance below the tolerance.

    Args:
        first: reduced; the order matters, since the tolerances belong to the second.
        second: reduced, of the same formula and number of atoms.
        ltol: as in `Compare`.
        stol: as in `Compare`.
        angle_tol: as in `Compare`.
    """
    other = np.array(second.numbers[:, None] != first.numbers[None], dtype=np.int64)  # 1: of different kinds
    anchor = int(other.sum(1).argmax())  # an atom of the second of the rarest kind
    places = np.flatnonzero(other[anchor] == 0)
    ratio = abs(np.linalg.det(second.lattice) / np.linalg.det(first.lattice)) ** (1 / 6)
    here, there = Lattice(first.lattice * ratio), Lattice(second.lattice / ratio)
    positions = first.frac_coords @ here.matrix
    for basis, _, whole in here.find_all_mappings(there, ltol=ltol, atol=angle_tol, skip_rotation_matrix=True):
        if abs(abs(np.linalg.det(whole)) - 1) > 0.5:
            continue  # a basis of a sublattice
        placed = basis.get_fractional_coords(positions) % 1.0
        parameters = (np.array(basis.parameters) + np.array(there.parameters)) / 2
        mean = Lattice.from_parameters(*parameters)
        density = (len(placed) / mean.volume) ** (1 / 3)
        length = stol / (np.pi * density)
        offsets = placed[places] - second.frac_coords[anchor]
        tolerance = np.array(mean.reciprocal_lattice.abc) * length
        near = [
            moved
            for moved in second.frac_coords + offsets[:, None]
            if is_coord_subset_pbc(moved, placed, tolerance, other)
        ]
        if not near:
            continue
        tolerance = np.array(mean.get_lll_reduced_lattice().reciprocal_lattice.abc) * length
        for moved in near:
            distances, _, _ = StructureMatcher._cart_dists(placed, moved, mean, other, density, tolerance)  # type: ignore[no-untyped-call]
            if distances.max() < stol:
                return True
    return False
