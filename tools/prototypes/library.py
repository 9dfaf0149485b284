"""AFLOW's structure prototypes as they come with pymatgen, under stable labels."""

from __future__ import annotations

from functools import cache

from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from pymatgen.core import Structure

MAX_ATOMS = 20
"""Atoms per cell; the library's cells are primitive."""


@cache
def prototype_structures() -> dict[str, Structure]:
    """Label -> the prototype's own structure, for prototypes of at most `MAX_ATOMS` atoms, in the library's order.

    A label is AFLOW's name and the formula of the parent compound, e.g. `AB_cF8_225_a_b:NaCl`: several parents share
    one name (FeB, MnP, SnS) but differ in axes and free coordinates.

    Source: Mehl et al., Comput. Mater. Sci. 136, S1 (2017), as in `pymatgen.analysis.prototypes`.
    """
    found: dict[str, Structure] = {}
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        structure = entry["snl"].structure
        if len(structure) <= MAX_ATOMS:
            found[f"{entry['tags']['aflow']}:{structure.reduced_formula}"] = structure
    return found
