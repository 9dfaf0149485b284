"""How far a crystal is from others of its formula, by average minimum distances.

AMD: the k-th number is the distance of an atom to its k-th neighbour, averaged over the atoms of the cell; it depends
neither on the choice of the cell nor on the kinds of atoms, and two crystals are as far apart as their most different
numbers (Widdowson et al. 2022, doi 10.46793/match.87-3.529W). The first call compiles for up to 20 s, once per machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from atomrl.chemistry.matching import Formula, reduced_formula
from atomrl.chemistry.niggli import Crystal
from atomrl.extras import extra

NEIGHBORS = 100


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
        self._known: dict[Formula, NDArray[np.float64]] = {}

    def nearest(self, crystals: Sequence[Crystal]) -> NDArray[np.float64]:
        """Å, (B,): to the other crystals of the batch and to the references; infinite where there is none."""
        distances = np.full(len(crystals), np.inf)
        buckets: dict[Formula, list[int]] = {}
        for row, crystal in enumerate(crystals):
            buckets.setdefault(reduced_formula(crystal), []).append(row)
        for name, rows in buckets.items():
            if len(rows) == 1 and name not in self._references:
                continue
            here = self._vectors([crystals[row] for row in rows])
            everyone = np.concatenate([here, self._reference_vectors(name)])
            apart = np.abs(here[:, None] - everyone[None]).max(2)
            apart[apart <= 0] = np.inf
            distances[rows] = apart.min(1)
        return distances

    def _reference_vectors(self, name: Formula) -> NDArray[np.float64]:
        """AMDs of the references of a formula, (M, k)."""
        if name not in self._known:
            self._known[name] = self._vectors(self._references.get(name, []))
        return self._known[name]

    def _vectors(self, crystals: Sequence[Crystal]) -> NDArray[np.float64]:
        """AMDs of crystals, (n, k) in Å."""
        with extra("crystals"):  # here and not above: it imports numba, which takes seconds
            import amd  # type: ignore[import-untyped]  # noqa: PLC0415

        vectors = np.empty((len(crystals), self.neighbors))
        for row, crystal in enumerate(crystals):
            periodic = amd.PeriodicSet(motif=crystal.frac_coords @ crystal.lattice, cell=crystal.lattice)
            vectors[row] = amd.AMD(periodic, self.neighbors)
        return vectors
