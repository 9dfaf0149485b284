"""Structures that pymatgen wrote as JSON: `Structure.as_dict`, `Molecule.as_dict`, and entries that hold one.

They are read as plain numbers and texts. pymatgen's own reader imports what a file names as the class of a property, so
that loading a file could run code; nothing here does.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from atomrl.data.molecule_files import CHARGED, TEXT, Entry
from atomrl.util.errors import UserError, first_line
from atomrl.workers.failure import Failure

NUMBERS = {symbol: number for symbol, number in atomic_numbers.items() if number} | {"D": 1, "T": 1}
"""Atomic numbers by symbol; deuterium and tritium are hydrogen."""

FULL = 1e-6
"""How near to 1 an occupancy must be."""

NO_JSON = (OSError, EOFError, zlib.error, ValueError)
"""What is raised for a file that is truncated, no text, or no JSON."""


def read_pymatgen_json(path: Path) -> Iterator[Entry]:
    """All structures of a file: one, a list of them, or a mapping of names to them; compressed if it ends in `.gz`.

    Raises:
        UserError: the file cannot be read, or is no JSON.
    """
    try:
        with gzip.open(path, "rt", encoding=TEXT) if path.suffix == ".gz" else path.open(encoding=TEXT) as file:
            held = json.load(file)
    except NO_JSON as error:
        raise UserError(
            f"{path} cannot be read as JSON ({first_line(error)}): is it truncated? copy it again"
        ) from error
    for name, value in _items(held):
        where = f"{path.name} entry {name}"
        try:
            yield _entry(where, value)
        except Failure as failure:
            yield Entry.broken(where, failure.reason)


def _items(held: Any) -> Iterator[tuple[str, Any]]:
    """Names of the structures, and what stands there."""
    if isinstance(held, Mapping) and not held.keys() & {"@class", "sites", "structure"}:
        yield from held.items()
        return
    for number, value in enumerate(held if isinstance(held, list) else [held], start=1):
        title = value.get("entry_id") if isinstance(value, Mapping) else None
        yield str(number) + (f" ({title})" if isinstance(title, str) else ""), value


def _entry(where: str, held: Any) -> Entry:
    """One structure, or the one of an entry.

    Raises:
        Failure: it is none.
    """
    if isinstance(held, Mapping) and "sites" not in held:
        held = held.get("structure")
    sites = held.get("sites") if isinstance(held, Mapping) else None
    if not isinstance(sites, list) or not sites:
        raise Failure("it holds no list of sites")
    numbers = np.array([_number(place, site) for place, site in enumerate(sites, start=1)], dtype=np.int64)
    lattice = held.get("lattice")
    if lattice is None:
        return Entry(where, numbers, _vectors("xyz", sites), remark=CHARGED if held.get("charge") else None)
    if not isinstance(lattice, Mapping) or lattice.get("pbc", (True,) * 3) not in ([True] * 3, (True,) * 3):
        raise Failure("its lattice is not periodic in all directions")
    cell = _floats("the lattice's matrix", lattice.get("matrix"), (3, 3))
    return Entry(where, numbers, _vectors("abc", sites) @ cell, cell=cell)


def _number(place: int, site: Any) -> int:
    """Atomic number of a site that one atom holds."""
    species = site.get("species") if isinstance(site, Mapping) else None
    if not isinstance(species, list) or not all(isinstance(one, Mapping) for one in species):
        raise Failure(f"site {place} names no species")
    amounts = {str(one.get("element")): one.get("occu", 1) for one in species}
    symbol, amount = next(iter(amounts.items()), ("nothing", 0))
    if len(species) != 1 or not isinstance(amount, int | float) or abs(amount - 1) > FULL:
        held = ", ".join(f"{name} {part}" for name, part in amounts.items())
        raise Failure(f"site {place} is not held by one atom: {held or 'nothing'}")
    if symbol not in NUMBERS:
        raise Failure(f"site {place}: {symbol!r} is no element")
    return NUMBERS[symbol]


def _vectors(name: str, sites: list[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A vector of each site, (N, 3)."""
    return _floats(f"{name} of its sites", [site.get(name) for site in sites], (len(sites), 3))


def _floats(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers of this shape."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Failure(f"{name}: {first_line(error)}") from error
    if array.shape != shape:
        raise Failure(f"{name}: numbers {array.shape}, not {shape}")
    return array
