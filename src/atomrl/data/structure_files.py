"""Structures of any origin that shall be judged: files of crystals or molecules, entry after entry.

An entry that cannot be read stays among the others, as a structure without atoms, with its reason: it fails every
check, and counts in every denominator.

| ending | what | read by |
|---|---|---|
| `.cif` | a crystal in each block, as it is described there | gemmi, `structures.cif` |
| `.extxyz`, `.xyz` | a frame for each structure; one that is periodic is a crystal | ASE |
| `.json`, `.json.gz` | pymatgen's `as_dict` of structures or entries: one, a list, a mapping | `pymatgen_json` |
| `.sdf`, `.mol` | molecules | RDKit |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from atomrl.core.records import Structures
from atomrl.data.molecule_files import TEXT, Entry, are_elements, files_below, read_sdf, read_xyz
from atomrl.data.number_columns import SHOWN
from atomrl.data.pymatgen_json import read_pymatgen_json
from atomrl.structures.molecules import Geometry
from atomrl.structures.padding import join
from atomrl.util.errors import UserError
from atomrl.util.progress import bar
from atomrl.workers.executor import Executor, Workers

CRYSTALS, MOLECULES = "crystals", "molecules"
BLOCK = 1024
"""Entries that are read and parsed at a time."""
TIMEOUT = 30.0
"""Seconds for one CIF."""
PARSE = "atomrl.structures.cif:parse_cif"
ASSUMED_P1 = "do not declare a symmetry, so their sites count as all atoms (P 1)"
NO_CELL, PERIODIC = "domain: it has no cell, so it is not a crystal", "domain: it is periodic, so not a molecule"


class CifText(NamedTuple):
    """A block of a CIF that is not parsed yet."""

    where: str
    text: str


@dataclass(frozen=True)
class ReadStructures:
    """What was read.

    Attributes:
        structures: B structures; those that cannot be read have no atoms.
        where: file and entry of each.
        reasons: a kind, a colon and why it cannot be read, of each; None where it can.
        remarks: what a user should know of those that can, by what is said: their files and entries.
    """

    structures: Structures
    where: tuple[str, ...]
    reasons: tuple[str | None, ...]
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def report(self) -> str | None:
        """Which could not be read, and the remarks, in one line; None if there is nothing to say."""
        failed = [f"{place}: {why}" for place, why in zip(self.where, self.reasons, strict=True) if why is not None]
        said = {"cannot be read and count as failed": failed} if failed else {}
        lines = [
            f"{len(places)} of {len(self.where)} {what}: {_first(places)}"
            for what, places in [*said.items(), *self.remarks.items()]
        ]
        return "; ".join(lines) or None


def read_entries_of(path: Path, workers: Workers) -> list[Entry]:
    """All structures of a file, or of all files in a folder and those below it, in the order of their names.

    Raises:
        UserError: nothing is there, a file is of another format, cannot be read at all, or holds nothing.
    """
    entries: list[Entry] = []
    items = _items(path)
    with closing(workers.executor(PARSE, TIMEOUT, {"niggli": False})) as parser, bar(range(0), "read") as progress:
        while block := list(islice(items, BLOCK)):
            entries += _parsed(block, parser)
            progress.update(len(block))
    if not entries:
        raise UserError(f"{path} holds no structure: give a file with one or more")
    return entries


def domain_of_entries(path: Path, entries: Sequence[Entry]) -> str:
    """`crystals` or `molecules`: what the first structure is that can be read.

    Raises:
        UserError: none can.
    """
    for entry in entries:
        if entry.reason is None:
            return MOLECULES if entry.cell is None else CRYSTALS
    first = f"{entries[0].where}: {entries[0].reason}"
    raise UserError(f"{path}: none of its {len(entries)} structures can be read; the first: {first}")


def as_structures(path: Path, entries: Sequence[Entry], domain: str) -> ReadStructures:
    """Entries as one padded batch; one of another domain counts as one that cannot be read.

    Raises:
        UserError: no entry is of that domain.
    """
    found = domain_of_entries(path, entries)
    crystals = domain == CRYSTALS
    checked = [_of_domain(entry, crystals) for entry in entries]
    if all(entry.reason is not None for entry in checked):
        raise UserError(f"{path} holds {found}, and no {domain}: give files of one kind, or leave out --domain")
    structures = join([Geometry(entry.numbers, entry.positions) for entry in checked])
    if crystals:
        cells = [np.zeros((3, 3)) if entry.cell is None else entry.cell for entry in checked]
        structures = replace(structures, cell=torch.from_numpy(np.stack(cells)))
    where, reasons = zip(*((entry.where, entry.reason) for entry in checked), strict=True)
    remarks: dict[str, list[str]] = {}
    for entry in checked:
        if entry.remark is not None and entry.reason is None:
            remarks.setdefault(entry.remark, []).append(entry.where)
    return ReadStructures(structures, where, reasons, remarks)


def _first(places: Sequence[str]) -> str:
    """The first few of a list."""
    return "; ".join(places[:SHOWN]) + (f"; and {len(places) - SHOWN} more" if len(places) > SHOWN else "")


def _of_domain(entry: Entry, crystals: bool) -> Entry:
    """The entry, or that it is of another domain."""
    if entry.reason is None and (entry.cell is not None) != crystals:
        return Entry.broken(entry.where, NO_CELL if crystals else PERIODIC)
    return entry


def _items(path: Path) -> Iterator[Entry | CifText]:
    """What stands in a file or in those of a folder."""
    if path.is_dir():
        files = files_below(path, lambda file: _ending(file) in READERS)
        if not files:
            raise UserError(f"{path}: the folder holds no {', '.join(READERS)}")
        for file in files:
            yield from _in_folder(path, file)
        return
    ending = _ending(path)
    if ending not in READERS:
        raise UserError(f"{path}: the ending must be one of {', '.join(READERS)}; or give a folder of such files")
    kind = ending.split(".")[1]
    try:
        for item in READERS[ending](path):
            yield _checked(item, kind) if isinstance(item, Entry) else item
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; give a file or a folder") from error


def _checked(entry: Entry, kind: str) -> Entry:
    """The entry, if it has atoms, all of elements; what is broken says first what kind of file it stands in."""
    if entry.reason is None and not len(entry.numbers):
        entry = Entry.broken(entry.where, "it has no atoms")
    if entry.reason is None and not are_elements(entry.numbers):
        entry = Entry.broken(entry.where, "it has an atom of no element, e.g. X, * or R")
    return entry if entry.reason is None else replace(entry, reason=f"{kind}: {entry.reason}")


def _in_folder(folder: Path, file: Path) -> Iterator[Entry | CifText]:
    """What stands in a file of a folder; a file that cannot be read at all, or holds nothing, costs itself only."""
    name, number = str(file.relative_to(folder)), 0
    try:
        for number, item in enumerate(_items(file), start=1):  # noqa: B007 - counted
            where = name + item.where.removeprefix(file.name)
            yield item._replace(where=where) if isinstance(item, CifText) else replace(item, where=where)
    except UserError as error:
        yield Entry.broken(name, f"file: {error}")
        return
    if not number:
        yield Entry.broken(name, "file: it holds no structure")


def _ending(path: Path) -> str:
    """Of a name, with what it was before it was compressed."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def _parsed(block: Sequence[Entry | CifText], parser: Executor) -> list[Entry]:
    """The block, in order, with its CIFs parsed."""
    outcomes = iter(parser.map([item.text for item in block if isinstance(item, CifText)]))
    entries = []
    for item in block:
        if isinstance(item, Entry):
            entries.append(item)
            continue
        outcome = next(outcomes)
        if outcome.reason is not None:
            entries.append(Entry.broken(item.where, outcome.reason))
        else:
            numbers, frac_coords, lattice = outcome.value.crystal
            remark = ASSUMED_P1 if outcome.value.assumed_p1 else None
            entries.append(Entry(item.where, numbers, frac_coords @ lattice, remark=remark, cell=lattice))
    return entries


def read_cif(path: Path) -> Iterator[CifText]:
    """The blocks of a CIF, each by itself, so that a broken one does not cost the next.

    A block without a cell and without atoms is none of a structure, e.g. a journal's `data_global`.
    """
    with path.open(encoding=TEXT, errors="replace") as file:
        for number, text in enumerate(_blocks(file), start=1):
            name = text.partition("\n")[0].strip()[len("data_") :]
            where = f"{path.name} block {number}" + (f" ({name})" if name else "")
            if any(tag in text.lower() for tag in ("_atom_site_", "_cell_length_a")):
                yield CifText(where, text)


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """The text of each block; `data_` within a text between semicolons begins none."""
    block: list[str] = []
    within = False
    for line in lines:
        if line.startswith(";"):
            within = not within
        elif not within and (start := line.lstrip())[: len("data_")].lower() == "data_":
            if block:
                yield "".join(block)
            block = [start]
            continue
        if block:
            block.append(line)
    if block:
        yield "".join(block)


READERS: dict[str, Callable[[Path], Iterable[Entry | CifText]]] = {
    ".cif": read_cif,
    ".extxyz": read_xyz,
    ".xyz": read_xyz,
    ".json": read_pymatgen_json,
    ".json.gz": read_pymatgen_json,
    ".sdf": read_sdf,
    ".mol": read_sdf,
}
"""Who reads a file, by its ending."""
