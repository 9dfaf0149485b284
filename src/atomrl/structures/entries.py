"""The crystal of a pymatgen entry in JSON. Runs in worker processes: no torch in here.

pymatgen's own reader makes objects of any class that a file names; here only numbers and symbols are read.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np

from atomrl.structures.cells import canonical, to_arrays
from atomrl.structures.cif import ParsedCif
from atomrl.util.optional_imports import extra
from atomrl.workers.failure import Failure

with extra("crystals"):
    from pymatgen.core import Element, Lattice, Structure

WHOLE = 1e-6
"""An occupancy that is so far from 1 is a partial one."""


def parse_entry(text: str) -> ParsedCif:
    """The crystal of a `ComputedStructureEntry`, or of a `Structure`, in its canonical form; its energy is not read.

    Raises:
        Failure: a kind, a colon and what is wrong: `entry` (no structure as pymatgen writes it), `element`,
            `disordered`. Or `niggli` alone.
    """
    try:
        record = json.loads(text)
        structure = record.get("structure", record)
        lattice = np.array(structure["lattice"]["matrix"], dtype=np.float64).reshape(3, 3)
        frac_coords = np.array([site["abc"] for site in structure["sites"]], dtype=np.float64).reshape(-1, 3)
        species = [site["species"] for site in structure["sites"]]
        symbols = [_symbol(held) for held in species]
        periodic = all(structure["lattice"].get("pbc", (True,)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(f"entry: no structure as pymatgen writes it ({type(error).__name__}: {error})") from error
    if not periodic:
        raise Failure("entry: its lattice is not periodic in all directions")
    if not symbols or not (np.isfinite(lattice).all() and np.isfinite(frac_coords).all()):
        raise Failure("entry: no sites, or a number that is not finite")
    if abs(np.linalg.det(lattice)) < WHOLE:
        raise Failure("entry: a cell without volume")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity to sort by
        return ParsedCif(to_arrays(canonical(Structure(Lattice(lattice), symbols, frac_coords))), assumed_p1=False)


def _symbol(held: list[dict[str, Any]]) -> str:
    """The element of a site.

    Raises:
        Failure: it is held by several, or partly, or by what is no element.
    """
    if len(held) != 1 or not abs(float(held[0]["occu"]) - 1) <= WHOLE:
        raise Failure(f"disordered: a site with {', '.join(str(one.get('element')) for one in held)}")
    symbol = str(held[0]["element"])
    if not Element.is_valid_symbol(symbol):
        raise Failure(f"element: {symbol!r} is none")
    return symbol
