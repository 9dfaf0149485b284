"""The control of a structure prediction: known crystals of the nearest formulas, with other elements in their places.

How far apart two elements are is the difference of their Mendeleev numbers, which order the elements by the crystals
that they form (Pettifor 1984, doi 10.1016/0038-1098(84)90765-8).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from atomrl.structures.cells import Crystal
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core import Element

Whole = NDArray[np.int64]


class Neighbor(NamedTuple):
    """A known crystal with the elements of another formula.

    Attributes:
        row: of the known crystal.
        distance: of the formulas: sum over elements of their share times the difference of Mendeleev numbers.
        crystal: with the other elements, at a volume in proportion to the sum of the cubes of the covalent radii.
    """

    row: int
    distance: float
    crystal: Crystal


class NearestFormulas:
    """Known crystals, to be looked up by formula.

    Args:
        known: crystals, e.g. those that a model was trained on.
    """

    def __init__(self, known: Sequence[Crystal]) -> None:
        self._known = known
        rows: dict[tuple[int, ...], list[int]] = {}
        elements: dict[tuple[int, ...], list[Whole]] = {}
        for row, crystal in enumerate(known):
            amounts, numbers = _in_order(crystal)
            rows.setdefault(amounts, []).append(row)
            elements.setdefault(amounts, []).append(numbers)
        self._rows = {amounts: np.array(found) for amounts, found in rows.items()}
        self._elements = {amounts: np.stack(found) for amounts, found in elements.items()}

    def nearest(self, crystal: Crystal, most: int) -> list[Neighbor]:
        """Known crystals with as many atoms of each kind as a formula has, e.g. of ABC3 for SrTiO3, the nearest first.

        Elements take each other's place if there are equal numbers of their atoms; of several such, in the order of
        their Mendeleev numbers, which makes the distance least. Of equally near formulas the first come first.

        Args:
            crystal: whose elements and numbers of atoms are asked for; its structure is not looked at.
            most: at most so many.

        Returns:
            None or more.
        """
        amounts, numbers = _in_order(crystal)
        if amounts not in self._rows:
            return []
        shares = np.array(amounts) / sum(amounts)
        there = self._elements[amounts]
        distances = (shares * np.abs(mendeleev_numbers(there) - mendeleev_numbers(numbers))).sum(1)
        order = np.argsort(distances, kind="stable")[:most]
        return [
            Neighbor(row, float(distances[place]), replaced(self._known[row], there[place], numbers))
            for place, row in zip(order, self._rows[amounts][order].tolist(), strict=True)
        ]


def replaced(crystal: Crystal, old: Whole, new: Whole) -> Crystal:
    """A crystal with other elements, at a volume in proportion to the sum of the cubes of the covalent radii.

    Args:
        crystal: that is changed.
        old: its elements, each once.
        new: what takes the place of each.
    """
    table = np.zeros(len(covalent_radii), dtype=np.int64)
    table[old] = new
    numbers = table[crystal.numbers]
    sums = [float((covalent_radii[each] ** 3).sum()) for each in (numbers, crystal.numbers)]
    return Crystal(numbers, crystal.frac_coords, crystal.lattice * (sums[0] / sums[1]) ** (1 / 3))


def mendeleev_numbers(numbers: Whole) -> NDArray[np.float64]:
    """Of atomic numbers (...), Pettifor's."""
    return _table()[numbers]


@cache
def _table() -> NDArray[np.float64]:
    """Mendeleev number by atomic number; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No data available for mendeleev_no")  # of elements behind lawrencium
        found = [Element.from_Z(number).mendeleev_no for number in range(1, len(covalent_radii))]
    return np.array([np.nan, *(np.nan if each is None else each for each in found)], dtype=np.float64)


def _in_order(crystal: Crystal) -> tuple[tuple[int, ...], Whole]:
    """Numbers of atoms of each element, ascending, and the elements; those of equal numbers by Mendeleev number."""
    elements, counts = np.unique(crystal.numbers, return_counts=True)
    order = np.lexsort((mendeleev_numbers(elements), counts))
    return tuple(counts[order].tolist()), elements[order]
