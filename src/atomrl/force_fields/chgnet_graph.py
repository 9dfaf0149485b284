"""Crystal to CHGNet's input graph with array operations.

The same graph as `chgnet.graph.CrystalGraphConverter` builds edge by edge, several times faster; pairs at the very
edge of the cutoff, where one direction is found and the other is not, are left out (their weight is 0) instead of
raising, and nothing is written to the working folder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.structures.cells import Crystal
from atomrl.util.optional_imports import extra
from atomrl.workers.failure import Failure

with extra("crystals"):
    from chgnet.graph import CrystalGraph
    from pymatgen.optimization.neighbors import find_points_in_spheres

Indices = NDArray[np.int64]


def crystal_graph(crystal: Crystal, atom_cutoff: float = 6.0, bond_cutoff: float = 3.0) -> CrystalGraph:
    """The graph of one crystal: atoms, bonds within `atom_cutoff`, angles between bonds within `bond_cutoff` (Å).

    `atom_frac_coord` and `lattice` are leaves, so that energies can be differentiated with respect to them.

    Raises:
        Failure: `isolated`: an atom has no neighbour within `atom_cutoff`.
    """
    frac_coords = crystal.frac_coords % 1.0
    centers, neighbors, images, distances = _neighbors(frac_coords, crystal.lattice, atom_cutoff)
    directed2undirected, undirected2directed, kept = _undirected(centers, neighbors, images)
    centers, neighbors, images, distances = centers[kept], neighbors[kept], images[kept], distances[kept]
    if len(np.unique(centers)) < len(crystal.numbers):
        raise Failure("isolated")
    return CrystalGraph(
        atomic_number=_int32(crystal.numbers),
        atom_frac_coord=torch.tensor(frac_coords, dtype=torch.float32, requires_grad=True),
        atom_graph=_int32(np.stack([centers, neighbors], axis=1)),
        atom_graph_cutoff=atom_cutoff,
        neighbor_image=torch.tensor(images, dtype=torch.float32),
        directed2undirected=_int32(directed2undirected),
        undirected2directed=_int32(undirected2directed),
        bond_graph=_int32(_angles(centers, directed2undirected, distances < bond_cutoff)),
        bond_graph_cutoff=bond_cutoff,
        lattice=torch.tensor(crystal.lattice, dtype=torch.float32, requires_grad=True),
    )


def _neighbors(
    frac_coords: NDArray[np.float64], lattice: NDArray[np.float64], cutoff: float
) -> tuple[Indices, Indices, Indices, NDArray[np.float64]]:
    """Directed pairs within the cutoff: center, neighbor, the neighbor's cell (E, 3), distance in Å."""
    lattice = np.ascontiguousarray(lattice, dtype=np.float64)
    positions = np.ascontiguousarray(frac_coords @ lattice)
    found: Any = find_points_in_spheres(positions, positions, cutoff, np.ones(3, dtype=np.int64), lattice, 1e-8)
    centers, neighbors, images, distances = found
    others = ~((centers == neighbors) & (distances <= 1e-8))
    return centers[others], neighbors[others], np.rint(images[others]).astype(np.int64), distances[others]


def _undirected(centers: Indices, neighbors: Indices, images: Indices) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Pair the two directions of each bond.

    Returns:
        The bond of each kept directed edge; one directed edge of each bond; which directed edges are kept: those whose
        other direction was found too. Both index arrays count kept edges only.
    """
    reach = int(np.abs(images).max(initial=0))
    base = 2 * reach + 1

    def code(first: Indices, second: Indices, image: Indices) -> Indices:
        cell: Indices = ((image[:, 0] + reach) * base + image[:, 1] + reach) * base + image[:, 2] + reach
        pair: Indices = first * (int(neighbors.max(initial=0)) + 1) + second
        return pair * base**3 + cell

    codes = np.minimum(code(centers, neighbors, images), code(neighbors, centers, -images))
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    kept = counts[inverse] == 2
    _, first, bond = np.unique(codes[kept], return_index=True, return_inverse=True)
    return bond, first, kept


def _angles(centers: Indices, bonds: Indices, short: NDArray[np.bool_]) -> Indices:
    """Ordered pairs of different short edges with the same center.

    Returns:
        (A, 5): center, bond and directed edge of the first, bond and directed edge of the second.
    """
    edges = np.flatnonzero(short)
    edges = edges[np.argsort(centers[edges], kind="stable")]
    counts = np.bincount(centers[edges], minlength=int(centers.max(initial=-1)) + 1)
    partners = counts[centers[edges]]
    first = np.repeat(np.arange(len(edges)), partners)
    starts = (np.cumsum(counts) - counts)[centers[edges]]
    offsets = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners, partners)
    second = np.repeat(starts, partners) + offsets
    different = first != second
    one, two = edges[first[different]], edges[second[different]]
    return np.stack([centers[one], bonds[one], one, bonds[two], two], axis=1)


def _int32(values: Indices) -> torch.Tensor:
    """Integers as CHGNet wants them."""
    return torch.from_numpy(values.astype(np.int32))
