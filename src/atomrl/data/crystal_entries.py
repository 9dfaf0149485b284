"""Crystals in pymatgen's JSON: a list of `ComputedStructureEntry` or `Structure`, as `dumpfn` of monty writes.

Materials Project gives its entries this way. The list is read piece by piece, whatever its length.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from atomrl.data.crystal_csv import BLOCK, CIF, ID, parsed_once
from atomrl.data.crystal_set import CrystalSet
from atomrl.data.molecule_files import TEXT
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers

BETWEEN = re.compile(r"[\s,]*")
"""What stands between entries."""

ENDINGS = (".json", ".json.gz")

PIECE = 1 << 20
"""Characters that are read at a time."""

LONGEST = 1 << 26
"""Characters of one entry at most."""


def load_crystal_entries(path: Path, cache: Path | None = None, workers: Workers | int | None = None) -> CrystalSet:
    """The crystals of a JSON file in their canonical form, parsed on the first call, then cached.

    Energies in the file are not read: a hull needs those of the force field that it is for.

    Args:
        path: a list of entries, `.json` or `.json.gz`.
        cache: folder for prepared data; the user's cache folder if None.
        workers: of the run, or a number of processes; one per core that this process may use if None.

    Raises:
        UserError: the file is missing, no such list, or has no entry that holds a sound crystal.
    """
    return parsed_once(path, _blocks, "atomrl.structures.entries:parse_entry", cache, workers)


def _blocks(path: Path) -> Iterator[dict[int, dict[str, str]]]:
    """Entries by number, `BLOCK` at a time: their id and their text.

    Raises:
        UserError: it is no list of entries.
    """
    try:
        with gzip.open(path, "rt", encoding=TEXT) if path.suffix == ".gz" else path.open(encoding=TEXT) as file:
            rows = enumerate(_entries(file), start=1)
            while block := list(islice(rows, BLOCK)):
                yield {number: {ID: name or f"entry-{number}", CIF: text} for number, (name, text) in block}
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} is not a list of pymatgen's entries in JSON ({error}): give what dumpfn(entries, file) writes"
        ) from error


def _entries(file: IO[str]) -> Iterator[tuple[str | None, str]]:
    """Id and text of each object in a list.

    Raises:
        ValueError: it is no list of objects.
    """
    decoder, held, place = json.JSONDecoder(), file.read(PIECE).lstrip(), 1
    if not held.startswith("["):
        raise ValueError("it does not begin with [")
    while True:
        place = BETWEEN.match(held, place).end()  # type: ignore[union-attr]  # it matches nothing too
        if held.startswith("]", place):
            return
        if place < len(held) and held[place] != "{":
            raise ValueError(f"{held[place : place + 20]!r} is no object")
        try:
            record, end = decoder.raw_decode(held, place)
        except json.JSONDecodeError as error:  # of which the rest may still come
            more = file.read(PIECE)
            if not more or len(held) - place > LONGEST:
                raise ValueError("an entry does not end") from error
            held, place = held[place:] + more, 0
            continue
        name = record.get("entry_id") or record.get("material_id")
        yield None if name is None else str(name), held[place:end]
        place = end
