"""Symmetry of cells, by spglib."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import spglib
from numpy.typing import NDArray
from pymatgen.core import Structure


def space_group(structure: Structure, tolerance: float) -> int:
    """International number; 1 where spglib finds no symmetry.

    Args:
        structure: a crystal.
        tolerance: Å.
    """
    with _quiet():
        dataset = spglib.get_symmetry_dataset(_cell(structure), symprec=tolerance)
    return 1 if dataset is None else int(dataset.number)


def primitive(structure: Structure, tolerance: float) -> Structure:
    """A primitive cell; the structure itself where spglib finds no symmetry."""
    with _quiet():
        found = spglib.find_primitive(_cell(structure), symprec=tolerance)
    if found is None:
        return structure
    lattice, frac_coords, numbers = found
    return Structure(lattice, np.asarray(numbers).tolist(), frac_coords)


def conventional_lengths(structure: Structure, tolerance: float) -> NDArray[np.float64]:
    """Lengths a, b, c of the conventional cell, Å, (3,); the structure's own where spglib finds no symmetry."""
    with _quiet():
        found = spglib.standardize_cell(_cell(structure), symprec=tolerance)
    lattice = structure.lattice.matrix if found is None else np.asarray(found[0])
    lengths: NDArray[np.float64] = np.linalg.norm(lattice, axis=1)
    return lengths


def _cell(structure: Structure) -> tuple[list[list[float]], list[list[float]], list[int]]:
    """A structure as spglib takes it."""
    numbers = [site.specie.Z for site in structure]
    return structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), numbers


@contextmanager
def _quiet() -> Iterator[None]:
    """Spglib warns at every call that it will raise exceptions in the future."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Set OLD_ERROR_HANDLING", category=DeprecationWarning)
        yield
