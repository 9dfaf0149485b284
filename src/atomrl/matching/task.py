"""What a worker process does for the matcher: reduce a crystal, compare reduced ones. No torch in here.

The verdicts are those of pymatgen's `StructureMatcher` (Ong et al. 2013, doi 10.1016/j.commatsci.2012.10.028) for pairs
of one reduced formula. Its own steps are taken on arrays instead of its `Structure`, whose sites are objects: copying
them is most of the time of `StructureMatcher.fit`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from atomrl.structures.cells import Crystal, to_arrays
from atomrl.structures.niggli import FloatArray, is_lll_reduced, niggli_cell, similar_bases
from atomrl.util.optional_imports import extra
from atomrl.workers.executor import Outcome
from atomrl.workers.failure import Failure

with extra("crystals"):
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.periodic_table import Element
    from pymatgen.core.structure import Structure
    from pymatgen.util.coord_cython import is_coord_subset_pbc, pbc_shortest_vectors  # type: ignore[import-not-found]

PRIMITIVE_TOLERANCE = 0.25
"""Å, with which `StructureMatcher` looks for a smaller cell."""


class Compare(NamedTuple):
    """Pairs of reduced crystals: does any of them match?

    Attributes:
        pairs: of one reduced formula and equal numbers of atoms, (reference, crystal) or (earlier, later); compared in
            order until one matches.
        ltol: tolerance of lengths, relative.
        stol: tolerance of sites, in units of (volume / atoms)^(1/3).
        angle_tol: tolerance of angles, degrees.
    """

    pairs: Sequence[tuple[Crystal, Crystal]]
    ltol: float
    stol: float
    angle_tol: float


def run_all(items: Sequence[Crystal | Compare]) -> list[Outcome]:
    """What becomes of each item; the task of the workers, which get several at a time."""
    return [outcome_of(run, item) for item in items]


def outcome_of(work: Callable[[Crystal | Compare], Any], item: Crystal | Compare) -> Outcome:
    """What becomes of one item."""
    try:
        return Outcome(work(item), None)
    except Failure as failure:
        return Outcome(None, failure.reason)


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
        reduced = niggli_cell(crystal.lattice)
        if (np.abs(reduced - crystal.lattice) > 1e-8 + 1e-5 * np.abs(crystal.lattice)).any():
            frac_coords = (crystal.frac_coords @ crystal.lattice) @ np.linalg.inv(reduced) % 1.0
            crystal = Crystal(crystal.numbers, frac_coords, reduced)
        if not may_be_supercell(crystal):
            return crystal
        species = [Element.from_Z(number) for number in crystal.numbers.tolist()]
        whole = Structure(Lattice(crystal.lattice), species, crystal.frac_coords)
        return to_arrays(whole.get_primitive_structure(PRIMITIVE_TOLERANCE))
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
    if units == 1:
        return False
    tolerance = PRIMITIVE_TOLERANCE / np.linalg.norm(crystal.lattice, axis=1)
    if tolerance.max() * units >= 1:
        return True
    kinds = sorted(set(numbers.tolist()), key=chemical_symbols.__getitem__)  # pymatgen's order
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
    here, there = first.lattice * ratio, second.lattice / ratio
    target = cell_parameters(there[None])
    bases = similar_bases(here, target[0], ltol, angle_tol) @ here
    placed = (first.frac_coords @ here) @ np.linalg.inv(bases) % 1.0
    parameters = (cell_parameters(bases) + target) / 2
    means = cells_of(parameters)
    density = (len(other) / np.abs(np.linalg.det(means))) ** (1 / 3)
    lengths = stol / (np.pi * density)
    tolerances = 2 * np.pi * np.linalg.norm(np.linalg.inv(means), axis=1) * lengths[:, None]
    moved = second.frac_coords + (placed[:, places] - second.frac_coords[anchor])[:, :, None]
    cells: dict[bytes, ReducedCell] = {}  # many bases of a symmetric lattice have the same parameters
    for basis, place in np.ndindex(moved.shape[:2]):
        if not is_coord_subset_pbc(moved[basis, place], placed[basis], tolerances[basis], other):
            continue
        kind = parameters[basis].round(8).tobytes()
        if kind not in cells:
            cells[kind] = ReducedCell.of(means[basis])
        distance = largest_distance(placed[basis], moved[basis, place], cells[kind], other, lengths[basis])
        if distance * density[basis] < stol:
            return True
    return False


class ReducedCell(NamedTuple):
    """The LLL-reduced cell of a lattice, as `pbc_shortest_vectors` asks for it, without pymatgen's `Lattice`.

    Attributes:
        lll_matrix: its vectors in rows, Å, (3, 3).
        to_lll: fractional coordinates of the lattice times this are those of the reduced cell, (3, 3).
        reciprocal: lengths of its reciprocal vectors, 1/Å, (3,).
        pbc: periodic in all directions.
    """

    lll_matrix: FloatArray
    to_lll: FloatArray
    reciprocal: FloatArray
    pbc: tuple[bool, bool, bool] = (True, True, True)

    @classmethod
    def of(cls, lattice: FloatArray) -> ReducedCell:
        """The reduced cell of lattice vectors (3, 3)."""
        reduced, to_lll = lattice, np.eye(3)
        if not is_lll_reduced(lattice):
            found = Lattice(lattice)
            reduced, to_lll = found.lll_matrix, found.lll_inverse
        return cls(reduced, to_lll, 2 * np.pi * np.linalg.norm(np.linalg.inv(reduced), axis=0))

    def get_lll_frac_coords(self, frac_coords: FloatArray) -> FloatArray:
        """Of fractional coordinates of the lattice, (N, 3)."""
        return frac_coords @ self.to_lll


def largest_distance(
    first: FloatArray, second: FloatArray, cell: ReducedCell, other: NDArray[np.int64], length: float
) -> float:
    """Å between the atoms of two crystals, each with its own, where their mean distance vector is taken off.

    Args:
        first: fractional coordinates, (N, 3).
        second: the same.
        cell: of both.
        other: 1 where an atom of the second (rows) and of the first (columns) are of different kinds, (N, N).
        length: Å / 2 pi, of pairs that are looked at.
    """
    vectors, squares = pbc_shortest_vectors(
        cell, second, first, other, return_d2=True, lll_frac_tol=cell.reciprocal * length
    )
    rows, columns = linear_sum_assignment(squares)
    short = vectors[rows, columns]
    short -= short.sum(0) / len(short)
    return float((short * short).sum(1).max() ** 0.5)


def cell_parameters(cells: FloatArray) -> FloatArray:
    """Lengths in Å and angles in degrees of cells (M, 3, 3), (M, 6)."""
    lengths = np.linalg.norm(cells, axis=2)
    units = cells / lengths[..., None]
    cosines = np.stack([(units[:, i] * units[:, j]).sum(1) for i, j in ((1, 2), (0, 2), (0, 1))], axis=1)
    return np.concatenate([lengths, np.rad2deg(np.arccos(np.clip(cosines, -1, 1)))], axis=1)


def cells_of(parameters: FloatArray) -> FloatArray:
    """Cells of these lengths and angles (M, 6), c along z and a in the x-z plane as in pymatgen, (M, 3, 3)."""
    a, b, c = parameters[:, :3].T
    radians = np.deg2rad(parameters[:, 3:].T)
    (cos_a, cos_b, cos_c), (sin_a, sin_b, _) = np.cos(radians), np.sin(radians)
    star = np.arccos(np.clip((cos_a * cos_b - cos_c) / (sin_a * sin_b), -1, 1))
    cells = np.zeros((len(parameters), 3, 3))
    cells[:, 0, 0], cells[:, 0, 2] = a * sin_b, a * cos_b
    cells[:, 1, 0], cells[:, 1, 1], cells[:, 1, 2] = -b * sin_a * np.cos(star), b * sin_a * np.sin(star), b * cos_a
    cells[:, 2, 2] = c
    return cells
