"""Crystal sets in the field's CSV format: `material_id, cif`, and property columns; one file per split.

Perov-5, Carbon-24, MP-20 and Alex-MP-20 come this way. A file is parsed once, in worker processes, into a cached
tensor file that is keyed by its content.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atomrl.data.crystal_set import CrystalSet, FailedRow
from atomrl.data.number_columns import NumberColumn, number_column, shown
from atomrl.data.qm9 import cache_folder
from atomrl.structures.cells import Crystal
from atomrl.structures.cif import ParsedCif
from atomrl.structures.crystals import check_cells, from_crystals
from atomrl.util.errors import UserError
from atomrl.workers.executor import PASSING, Executor, Workers
from atomrl.workers.local import as_workers

log = logging.getLogger(__name__)

CACHE_VERSION = 9
ID, CIF = "material_id", "cif"

BLOCK = 1024
"""Rows that are read, parsed and packed at a time: what is in memory besides the packed result."""

TIMEOUT = 30.0
"""Seconds for one CIF."""

ALIKE = 64
"""Crystals of about the same size that are checked at a time, padded to the largest of them."""


def load_crystal_csv(path: Path, cache: Path | None = None, workers: Workers | int | None = None) -> CrystalSet:
    """The crystals of a CSV file in their canonical form (`cells.canonical`); parsed on the first call, then cached.

    Rows that do not parse, whose atoms are not those that the CIF declares (`cif.parse_cif`), or whose cell is not
    sound (`check_cells`), are left out, kept as `failures`, and logged with the `remarks`. Nothing is cached while a
    worker was lost over a row.

    Args:
        path: with the columns `material_id` and `cif`.
        cache: folder for prepared data; the user's cache folder if None.
        workers: of the run, or a number of processes; one per core that this process may use if None.

    Raises:
        UserError: the file is missing, a Git LFS pointer, no such CSV text (`csv_blocks`), or has no row that holds a
            sound crystal.
    """
    return parsed_once(path, csv_blocks, "atomrl.structures.cif:parse_cif", cache, workers)


def parsed_once(
    path: Path,
    blocks: Callable[[Path], Iterator[Mapping[int, Mapping[str, str]]]],
    task: str,
    cache: Path | None = None,
    workers: Workers | int | None = None,
) -> CrystalSet:
    """The crystals of a file, parsed in worker processes on the first call, then cached; see `load_crystal_csv`.

    Args:
        path: of the file.
        blocks: its rows by number, some at a time: the columns `material_id`, `cif` (what the task parses) and others.
        task: of the workers: a text -> `ParsedCif`.
        cache: folder for prepared data; the user's cache folder if None.
        workers: of the run, or a number of processes; one per core that this process may use if None.

    Raises:
        UserError: the file is missing or a Git LFS pointer, or has no row that holds a sound crystal.
    """
    stored = (cache or cache_folder()) / f"crystals-v{CACHE_VERSION}-{_digest(path)}.safetensors"
    if stored.exists() and stored.with_suffix(".json").exists():
        crystals = CrystalSet.load(stored)
    else:
        crystals = _parse(path, blocks(path), task, as_workers(workers))
        if not {failure.reason for failure in crystals.failures} & PASSING:
            crystals.save(stored)
    if crystals.failures or crystals.remarks:
        log.warning("%s: %s", path, crystals.report())
    return crystals


def _digest(path: Path) -> str:
    """Hash of a file's content."""
    try:
        with path.open("rb") as file:
            if file.read(20).startswith(b"version https://git-"):
                raise UserError(f"{path} is a Git LFS pointer, not the data: run `git lfs pull` where it came from")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(
            f"cannot read the crystals {path}: {error.strerror}; give a CSV file with the columns {ID} and {CIF}"
        ) from error


def _parse(path: Path, blocks: Iterator[Mapping[int, Mapping[str, str]]], task: str, workers: Workers) -> CrystalSet:
    """Stream the rows through worker processes, a block at a time."""
    packed = _Packer()
    with closing(workers.executor(task, TIMEOUT)) as executor:
        for block in blocks:
            _add_block(packed, block, executor)
    return packed.result(path)


def csv_blocks(path: Path) -> Iterator[dict[int, dict[str, str]]]:
    """Rows of a CSV file by number, `BLOCK` at a time.

    Raises:
        UserError: it is not CSV text in UTF-8, lacks a column or has one twice, or has a row with more values than
            columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from _blocks(path, csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} is not CSV text in UTF-8 ({error}): unpack it if it is compressed, and save it in UTF-8"
        ) from error


def _add_block(packed: _Packer, block: Mapping[int, Mapping[str, str]], executor: Executor) -> None:
    """Parse rows, by number, and keep those that hold a sound crystal."""
    outcomes = executor.map([row[CIF] for row in block.values()])
    parsed = zip(block, outcomes, strict=True)
    unsound = _unsound({number: outcome.value.crystal for number, outcome in parsed if outcome.reason is None})
    for (number, row), outcome in zip(block.items(), outcomes, strict=True):
        reason = outcome.reason or unsound.get(number)
        if not row[CIF].strip():
            packed.failures.append(FailedRow(number, row[ID], "no_cif"))
        elif reason is not None:
            packed.failures.append(FailedRow(number, row[ID], reason))
        else:
            packed.add(outcome.value, number, row)


def _unsound(crystals: Mapping[int, Crystal]) -> dict[int, str]:
    """Of crystals by number, those whose cell no force field should see, and why."""
    reasons: dict[int, str] = {}
    by_size = iter(sorted(crystals, key=lambda number: len(crystals[number].numbers)))
    while some := list(islice(by_size, ALIKE)):
        found = check_cells(from_crystals([crystals[number] for number in some]))
        reasons |= {number: f"unsound: {why}" for number, why in zip(some, found, strict=True) if why is not None}
    return reasons


def _blocks(path: Path, reader: Iterator[list[str]]) -> Iterator[dict[int, dict[str, str]]]:
    """Rows by number, `BLOCK` at a time; short rows are filled with empty texts."""
    csv.field_size_limit(1 << 24)  # a CIF of thousands of atoms is longer than the default allows
    header = [name.strip() for name in next(reader, [])]
    for name in (ID, CIF):
        if name not in header:
            raise UserError(f"{path} has no column {name!r}, its columns are {header}: it needs {ID} and {CIF}")
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError(f"{path} has the column {twice[0]!r} {header.count(twice[0])} times: give each its own name")
    rows = enumerate((_as_wide(path, row, header) for row in reader if row), start=1)
    while block := list(islice(rows, BLOCK)):
        # the unnamed first column is the index that pandas writes
        yield {number: {name: text for name, text in zip(header, row, strict=True) if name} for number, row in block}


def _as_wide(path: Path, row: list[str], header: list[str]) -> list[str]:
    """A row with as many values as there are columns: empty ones are added where some are missing.

    Raises:
        UserError: it has more, e.g. for a decimal comma.
    """
    if any(text.strip() for text in row[len(header) :]):
        raise UserError(
            f"{path}: the row that begins with {row[0][:40]!r} has {len(row)} values, and there are {len(header)} "
            "columns: put values that hold a comma in quotation marks, and write decimals with a point"
        )
    return (row + [""] * len(header))[: len(header)]


class _Packer:
    """Collects parsed crystals and their columns."""

    def __init__(self) -> None:
        self.failures: list[FailedRow] = []
        self._numbers: list[NDArray[np.uint8]] = []
        self._frac_coords: list[NDArray[np.float32]] = []
        self._lattices: list[NDArray[np.float32]] = []
        self._ids: list[str] = []
        self._rows: list[int] = []
        self._assumed_p1: list[int] = []
        self._columns: dict[str, list[str]] = {}

    def add(self, parsed: ParsedCif, number: int, row: Mapping[str, str]) -> None:
        """Append one row, of this number in the file."""
        crystal = parsed.crystal
        if parsed.assumed_p1:
            self._assumed_p1.append(number)
        self._numbers.append(crystal.numbers.astype(np.uint8))
        self._frac_coords.append(crystal.frac_coords.astype(np.float32))
        self._lattices.append(crystal.lattice.astype(np.float32))
        self._ids.append(row[ID])
        self._rows.append(number)
        for name, text in row.items():
            if name != ID and name.partition(".")[0] != CIF:
                self._columns.setdefault(name, []).append(text)

    def result(self, path: Path) -> CrystalSet:
        """All of them, packed."""
        failures = tuple(self.failures)
        if not self._ids:
            if not failures:
                raise UserError(f"{path} has no row that holds a crystal: it has no rows; give each crystal one")
            first = f"the first, row {failures[0].row}, for {failures[0].reason}"
            raise UserError(
                f"{path} has no row that holds a crystal: {len(failures)} were left out, {first}; fix what the cause "
                "names, or give another file"
            )
        columns = {name: number_column(texts) for name, texts in self._columns.items()}
        texts = {name: self._columns[name] for name, column in columns.items() if not column.numeric}
        return CrystalSet(
            np.concatenate(self._numbers),
            np.concatenate(self._frac_coords),
            np.stack(self._lattices),
            np.cumsum([0, *map(len, self._numbers)]),
            {name: column.values for name, column in columns.items() if column.numeric},
            tuple(self._ids),
            {name: tuple(values) for name, values in texts.items()},
            failures,
            tuple(self._remarks({name: columns[name] for name in texts})),
            {name: columns[name].why_not(self._rows, values) for name, values in texts.items()},
        )

    def _remarks(self, texts: Mapping[str, NumberColumn]) -> Iterator[str]:
        """Symmetry that was assumed, identifiers that come again, and columns of texts of which most are numbers."""
        if self._assumed_p1:
            names = dict(zip(self._rows, self._ids, strict=True))
            yield (
                f"{len(self._assumed_p1)} rows do not declare a symmetry, so their sites count as all atoms (P 1): "
                f"{shown([(row, names[row]) for row in self._assumed_p1])}"
            )
        places = zip(self._rows, self._ids, strict=True)
        first = dict(reversed(list(zip(self._ids, self._rows, strict=True))))
        again = [(row, name) for row, name in places if first[name] != row]
        if again:
            yield f"{len(again)} rows have the {ID} of an earlier one: {shown(again)}"
        for name, column in texts.items():
            if column.filled and column.mostly:
                why = column.why_not(self._rows, self._columns[name])
                yield f"the column {name!r} is not a property, since {why}; leave them empty if they are missing"
