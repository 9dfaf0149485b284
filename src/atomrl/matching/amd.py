"""How far a crystal is from others of its formula, by average minimum distances.

AMD: the k-th number is the distance of an atom to its k-th neighbour, averaged over the atoms of the cell; it depends
neither on the choice of the cell nor on the kinds of atoms, and two crystals are as far apart as their most different
numbers (Widdowson et al. 2022, doi 10.46793/match.87-3.529W).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atomrl.matching.matcher import Formula, reduced_formula
from atomrl.structures.cells import Crystal
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core import Lattice

FloatArray = NDArray[np.float64]
Whole = NDArray[np.int64]

NEIGHBORS = 100

MARGIN = 1.1
"""First radius, relative to that of a ball with k + 1 atoms in it on average. Of the shipped set few need a second."""

PAIRS_AT_ONCE = 50_000
"""Distances that are held at one time: what stays in a processor's cache."""

CELLS_AT_ONCE = 200_000
"""Lattice translations that are held at one time."""

SKEW = 1.5
"""Lengths of the vectors over volume; beyond it, a cell is reduced. Primitive cells of close packings have 1.41."""

ROUNDING = 1e-9
"""Relative, and in Å: how much farther than necessary to look."""

CORNERS = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]) / 2
"""Of a cell about its middle; the other four are opposite to these."""


class AMDDistances:
    """Smallest positive distances to crystals of the same reduced formula.

    The crystals must have passed `crystals.check_cells`.

    Args:
        references: known crystals; looked at when a crystal of the same formula comes.
        neighbors: k, distances per atom.
    """

    def __init__(self, references: Iterable[Crystal] = (), neighbors: int = NEIGHBORS) -> None:
        self.neighbors = neighbors
        self._references: dict[Formula, list[Crystal]] = {}
        for crystal in references:
            self._references.setdefault(reduced_formula(crystal), []).append(crystal)
        self._known: dict[Formula, FloatArray] = {}

    def nearest(self, crystals: Sequence[Crystal]) -> FloatArray:
        """Å, (B,): to the other crystals of the batch and to the references; infinite where there is none."""
        distances = np.full(len(crystals), np.inf)
        buckets: dict[Formula, list[int]] = {}
        for row, crystal in enumerate(crystals):
            buckets.setdefault(reduced_formula(crystal), []).append(row)
        compared = {name: rows for name, rows in buckets.items() if len(rows) > 1 or name in self._references}
        here = self._vectors({name: [crystals[row] for row in rows] for name, rows in compared.items()})
        known = self._references.keys() & compared.keys()
        self._known |= self._vectors({name: self._references[name] for name in known - self._known.keys()})
        for name, rows in compared.items():
            everyone = np.concatenate([here[name], self._known[name]]) if name in known else here[name]
            for row, vector in zip(rows, here[name], strict=True):  # one at a time: all pairs may not fit in memory
                apart = np.abs(everyone - vector).max(1)
                distances[row] = apart.min(where=apart > 0, initial=np.inf)
        return distances

    def _vectors(self, buckets: Mapping[Formula, Sequence[Crystal]]) -> dict[Formula, FloatArray]:
        """AMDs of the M crystals of each formula, (M, k) in Å; all at once, which is faster."""
        flat = [crystal for bucket in buckets.values() for crystal in bucket]
        vectors = average_minimum_distances(flat, self.neighbors)
        stops = np.cumsum([len(bucket) for bucket in buckets.values()])
        return {name: vectors[stop - len(buckets[name]) : stop] for name, stop in zip(buckets, stops, strict=True)}


def average_minimum_distances(crystals: Sequence[Crystal], neighbors: int = NEIGHBORS) -> FloatArray:
    """AMDs of B crystals, (B, k) in Å, each the same to the last bit whatever the others are.

    Any cell that spans a volume will do. An atom's copies in other cells are neighbours of it, and so is another atom
    at the same place.

    First all atoms within a radius are looked at that makes sure of k + 1 of them (see `_translations`). The k-th
    distance among these is the true one or, if it is beyond the radius, no smaller: then it is the second radius.

    Args:
        crystals: of one atom or more each.
        neighbors: k, at least 1.
    """
    vectors, farthest = np.empty((len(crystals), neighbors)), np.empty(len(crystals))
    lattices, places = _reduced(crystals)
    volume_per_atom = np.abs(np.linalg.det(lattices)) / np.array([len(atoms) for atoms in places])
    radii = MARGIN * np.cbrt(3 / (4 * math.pi) * volume_per_atom * (neighbors + 1))
    rows = np.arange(len(crystals))
    while len(rows):
        boxes = _boxes(lattices[rows], radii[rows])
        for lot in _lots((2 * boxes + 1).prod(1), CELLS_AT_ONCE):
            here = rows[lot]
            shifts = _translations(lattices[here], radii[here], boxes[lot])
            atoms = [places[row] for row in here]
            vectors[here], farthest[here] = _mean_distances(lattices[here], atoms, shifts, neighbors)
        rows = rows[farthest[rows] > radii[rows]]
        radii[rows] = farthest[rows] * (1 + ROUNDING)
    return vectors


def _reduced(crystals: Sequence[Crystal]) -> tuple[FloatArray, list[FloatArray]]:
    """Lattices (B, 3, 3) and fractional coordinates (N, 3) each, of reduced cells where the given ones are skewed.

    That saves time only: any other cell would give the same distances.
    """
    lattices = np.array([crystal.lattice for crystal in crystals], dtype=np.float64).reshape(-1, 3, 3)
    places = [crystal.frac_coords % 1.0 for crystal in crystals]
    skews = np.linalg.norm(lattices, axis=2).prod(1) / np.abs(np.linalg.det(lattices))
    for row in np.flatnonzero(skews > SKEW):
        given, lattices[row] = lattices[row].copy(), Lattice(lattices[row]).lll_matrix
        places[row] = places[row] @ (given @ np.linalg.inv(lattices[row]))
    return lattices, places


def _boxes(lattices: FloatArray, radii: FloatArray) -> Whole:
    """How many translations along each vector to look at, to either side, (B, 3)."""
    cells_per_angstrom = np.linalg.norm(np.linalg.inv(lattices), axis=1)
    boxes: Whole = np.floor(radii[:, None] * cells_per_angstrom + (0.5 + ROUNDING)).astype(np.int64)
    return boxes


class _Shifts(NamedTuple):
    """Translations of B crystals.

    Attributes:
        padded: x, y, z in Å, (3, B, T); infinite after a crystal's last one.
        counts: how many each has, (B,).
    """

    padded: FloatArray
    counts: Whole

    def of(self, rows: Whole) -> FloatArray:
        """Those of M crystals, (3, M, T), without what is padding for all of them."""
        return self.padded[:, rows, : self.counts[rows].max()]


def _translations(lattices: FloatArray, radii: FloatArray, boxes: Whole) -> _Shifts:
    """All lattice translations that matter within a radius about an atom, and for sure enough of them.

    Of another atom's copies take the one that is half a cell away at most along each vector; the others are
    translations of it. One can be within the radius only if a cell with its middle at the translation reaches into the
    ball: then the translation is no longer than radius and half diagonal, and in the box. Since all such cells cover
    the ball, they are at least as many as have its volume, and bring as many copies of each atom.

    Args:
        lattices: vectors in rows, Å, (B, 3, 3).
        radii: Å, (B,).
        boxes: see `_boxes`, (B, 3).
    """
    grids = [_grid(*box) for box in boxes.tolist()]
    crystal = np.repeat(np.arange(len(grids)), [len(grid) for grid in grids])
    vectors = np.einsum("mi,mij->mj", np.concatenate(grids), lattices[crystal])
    half_diagonals = np.linalg.norm(CORNERS @ lattices, axis=2).max(1)
    near = np.square(vectors).sum(1) <= np.square(radii + half_diagonals + ROUNDING)[crystal]
    vectors, crystal = vectors[near], crystal[near]
    counts = np.bincount(crystal, minlength=len(grids))
    place = np.arange(len(crystal)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.full((3, len(grids), counts.max()), np.inf)
    padded[:, crystal, place] = vectors.T
    return _Shifts(padded, counts)


@lru_cache(maxsize=128)
def _grid(*most: int) -> FloatArray:
    """Whole numbers from -most to most along three axes, (G, 3)."""
    steps = np.indices([2 * number + 1 for number in most]).reshape(3, -1).T - np.array(most)
    grid: FloatArray = steps.astype(np.float64)
    grid.setflags(write=False)
    return grid


def _mean_distances(
    lattices: FloatArray, places: Sequence[FloatArray], shifts: _Shifts, neighbors: int
) -> tuple[FloatArray, FloatArray]:
    """AMDs with some translations only, (B, k), and the largest k-th distance of an atom of each crystal, (B,), Å.

    Args:
        lattices: vectors in rows, Å, (B, 3, 3).
        places: fractional coordinates of the atoms, (N, 3) each.
        shifts: of B crystals.
        neighbors: k.
    """
    vectors, farthest = np.empty((len(places), neighbors)), np.empty(len(places))
    sizes = np.array([len(atoms) for atoms in places])
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        frac_coords = np.stack([places[row] for row in alike.tolist()])
        which, atom = np.divmod(np.arange(len(alike) * size), size)
        distances = np.empty((len(which), neighbors))
        for rows in _lots(shifts.counts[alike[which]] * size, PAIRS_AT_ONCE):
            crystal, cell = which[rows], alike[which[rows]]
            steps = frac_coords[crystal] - frac_coords[crystal, atom[rows]][:, None]
            steps -= np.rint(steps)
            distances[rows] = _smallest(steps @ lattices[cell], shifts.of(cell), neighbors)
        by_crystal = distances.reshape(len(alike), size, neighbors)
        vectors[alike], farthest[alike] = by_crystal.mean(1), by_crystal[:, :, -1].max(1)
    return vectors, farthest


def _smallest(copies: FloatArray, shifts: FloatArray, neighbors: int) -> FloatArray:
    """The smallest k distances but for the very smallest, which is an atom's own zero, (M, k) in Å, ascending.

    Args:
        copies: steps from each of M atoms to a copy of each of N, (M, N, 3) in Å.
        shifts: translations that lead from there to more copies, (3, M, T) in Å.
        neighbors: k.
    """
    squares = np.zeros((len(copies), copies.shape[1], shifts.shape[2]))
    for axis in range(3):
        along = copies[:, :, None, axis] + shifts[axis, :, None]
        squares += np.square(along, out=along)
    rows = squares.reshape(len(copies), -1)
    rows.partition(neighbors, axis=1)
    distances: FloatArray = np.sqrt(np.sort(rows[:, : neighbors + 1], axis=1)[:, 1:])
    return distances


def _lots(costs: Whole, most: int) -> Iterator[NDArray[np.intp]]:
    """Rows, the cheap first, in lots whose number times their highest cost is within `most`, or of one row."""
    order = np.argsort(costs, kind="stable")
    start = 0
    while start < len(order):
        totals = costs[order[start:]] * np.arange(1, len(order) - start + 1)
        stop = start + max(1, int(np.searchsorted(totals, most, side="right")))
        yield order[start:stop]
        start = stop
