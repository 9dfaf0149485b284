"""Crystal sets in the field's CSV format: `material_id, cif`, and property columns; one file per split.

Perov-5, Carbon-24, MP-20 and Alex-MP-20 come this way. A file is parsed once, in worker processes, into a cached
tensor file that is keyed by its content.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from atomrl.data.qm9 import cache_folder
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import check_cells, from_crystals
from atomrl.util.errors import UserError
from atomrl.util.files import write_json, write_whole
from atomrl.workers.executor import TIMEOUT as TIMED_OUT
from atomrl.workers.executor import WORKER_DIED, Executor, Workers
from atomrl.workers.local import as_workers

log = logging.getLogger(__name__)

CACHE_VERSION = 2
ID, CIF = "material_id", "cif"

BLOCK = 1024
"""Rows that are read, parsed and packed at a time: what is in memory besides the packed result."""

TIMEOUT = 30.0
"""Seconds for one CIF."""

SHOWN = 5
"""Rows of a kind that a report names."""

ALIKE = 64
"""Crystals of about the same size that are checked at a time, padded to the largest of them."""


@dataclass(frozen=True)
class FailedRow:
    """A row that is not in the set.

    Attributes:
        row: its number in the file, 1 for the first after the header.
        material_id: its identifier.
        reason: why, as `niggli.parse_cif` says it, or `no_cif`, `timeout`, `worker_died`, or `unsound: ` and what
            `check_cells` says.
    """

    row: int
    material_id: str
    reason: str


@dataclass(frozen=True)
class CrystalSet:
    """C crystals of different sizes, packed atom after atom.

    Attributes:
        numbers: atomic numbers, (atoms,) uint8.
        frac_coords: fractional coordinates, (atoms, 3) float32.
        lattices: lattice vectors in rows, Å, (C, 3, 3) float32.
        offsets: crystal k holds the atoms offsets[k]:offsets[k + 1], (C + 1,) int64.
        properties: columns of numbers, {name: (C,) float64}, NaN where empty.
        ids: `material_id` of each crystal.
        labels: other columns, {name: C texts}; columns of further CIFs (`cif.conv`) are left out.
        failures: rows of the file that are not here.
        remarks: what else a reader should know, e.g. identifiers that come several times.
    """

    numbers: NDArray[np.uint8]
    frac_coords: NDArray[np.float32]
    lattices: NDArray[np.float32]
    offsets: NDArray[np.int64]
    properties: Mapping[str, NDArray[np.float64]]
    ids: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    failures: tuple[FailedRow, ...]
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Atoms per crystal, (C,)."""
        return np.diff(self.offsets)

    def crystal(self, row: int) -> Crystal:
        """One crystal; `crystals.from_crystals` makes a padded batch of several."""
        atoms = slice(self.offsets[row], self.offsets[row + 1])
        return Crystal(
            self.numbers[atoms].astype(np.int64),
            self.frac_coords[atoms].astype(np.float64),
            self.lattices[row].astype(np.float64),
        )

    def report(self) -> str:
        """How many rows were read and which were not, and the remarks, in one line."""
        return "; ".join((self._rows(), *self.remarks))

    def _rows(self) -> str:
        """How many rows were read and which were not."""
        total = len(self) + len(self.failures)
        if not self.failures:
            return f"all {total} rows read"
        kinds = Counter(failure.reason.partition(":")[0] for failure in self.failures)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        named = "; ".join(f"row {f.row} ({f.material_id}): {f.reason}" for f in self.failures[:SHOWN])
        more = len(self.failures) - SHOWN
        return f"{len(self)} of {total} rows read, {len(self.failures)} not ({counts}): {named}" + (
            f"; and {more} more" if more > 0 else ""
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        arrays = load_file(path)
        record = json.loads(path.with_suffix(".json").read_text())
        return cls(
            **{name: arrays.pop(name) for name in ("numbers", "frac_coords", "lattices", "offsets")},
            properties={name: arrays[f"property/{name}"] for name in record["properties"]},
            ids=tuple(record["ids"]),
            labels={name: tuple(texts) for name, texts in record["labels"].items()},
            failures=tuple(FailedRow(*failure) for failure in record["failures"]),
            remarks=tuple(record["remarks"]),
        )

    def save(self, path: Path) -> None:
        """Write `path` (safetensors) and, last, a JSON file of the same name with the texts.

        Raises:
            UserError: a file cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {
            name: np.ascontiguousarray(array)
            for name, array in (
                ("numbers", self.numbers),
                ("frac_coords", self.frac_coords),
                ("lattices", self.lattices),
                ("offsets", self.offsets),
                *((f"property/{name}", values) for name, values in self.properties.items()),
            )
        }
        write_whole(path, save(arrays))
        record = {
            "properties": list(self.properties),
            "ids": self.ids,
            "labels": self.labels,
            "failures": [(failure.row, failure.material_id, failure.reason) for failure in self.failures],
            "remarks": self.remarks,
        }
        write_json(path.with_suffix(".json"), record)


def load_crystal_csv(path: Path, cache: Path | None = None, workers: Workers | int | None = None) -> CrystalSet:
    """The crystals of a CSV file in their canonical form (`niggli.canonical`); parsed on the first call, then cached.

    Rows that do not parse, or to a cell that is not sound (`check_cells`), are left out, kept as `failures`, and logged
    with the `remarks`. Nothing is cached while a worker was lost over a row.

    Args:
        path: with the columns `material_id` and `cif`.
        cache: folder for prepared data; the user's cache folder if None.
        workers: of the run, or a number of processes; one per core that this process may use if None.

    Raises:
        UserError: the file is missing, a Git LFS pointer, no CSV text in UTF-8, lacks a column, or has no row that
            holds a sound crystal.
    """
    stored = (cache or cache_folder()) / f"crystals-v{CACHE_VERSION}-{_digest(path)}.safetensors"
    if stored.exists() and stored.with_suffix(".json").exists():
        crystals = CrystalSet.load(stored)
    else:
        crystals = _parse(path, as_workers(workers))
        if not {failure.reason for failure in crystals.failures} & {TIMED_OUT, WORKER_DIED}:  # may parse another time
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


def _parse(path: Path, workers: Workers) -> CrystalSet:
    """Stream the rows through worker processes, a block at a time."""
    packed = _Packer()
    try:
        with (
            path.open(newline="", encoding="utf-8-sig") as file,
            closing(workers.executor("atomrl.structures.cells:parse_cif", TIMEOUT)) as executor,
        ):
            for block in _blocks(path, csv.reader(file)):
                _add_block(packed, block, executor)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} is no CSV text in UTF-8 ({error}): unpack it if it is compressed, and save it in UTF-8"
        ) from error
    return packed.result(path)


def _add_block(packed: _Packer, block: Mapping[int, Mapping[str, str]], executor: Executor) -> None:
    """Parse rows, by number, and keep those that hold a sound crystal."""
    outcomes = executor.map([row[CIF] for row in block.values()])
    parsed = {number: outcome.value for number, outcome in zip(block, outcomes, strict=True) if outcome.reason is None}
    unsound = _unsound(parsed)
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
    rows = enumerate((row + [""] * (len(header) - len(row)) for row in reader if row), start=1)
    while block := list(islice(rows, BLOCK)):
        # the unnamed first column is the index that pandas writes
        yield {number: {name: text for name, text in zip(header, row, strict=False) if name} for number, row in block}


class _Packer:
    """Collects parsed crystals and their columns."""

    def __init__(self) -> None:
        self.failures: list[FailedRow] = []
        self._numbers: list[NDArray[np.uint8]] = []
        self._frac_coords: list[NDArray[np.float32]] = []
        self._lattices: list[NDArray[np.float32]] = []
        self._ids: list[str] = []
        self._rows: list[int] = []
        self._columns: dict[str, list[str]] = {}

    def add(self, crystal: Crystal, number: int, row: Mapping[str, str]) -> None:
        """Append one row, of this number in the file."""
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
            why = f"; the first: row {failures[0].row}: {failures[0].reason}" if failures else ": it has no rows"
            raise UserError(f"{path} has no row that holds a crystal, of {len(failures)}{why}")
        numbers = {name: _numbers(texts) for name, texts in self._columns.items()}
        return CrystalSet(
            np.concatenate(self._numbers),
            np.concatenate(self._frac_coords),
            np.stack(self._lattices),
            np.cumsum([0, *map(len, self._numbers)]),
            {name: values for name, values in numbers.items() if values is not None},
            tuple(self._ids),
            {name: tuple(self._columns[name]) for name, values in numbers.items() if values is None},
            failures,
            tuple(self._remarks(name for name, values in numbers.items() if values is None)),
        )

    def _remarks(self, texts: Iterable[str]) -> Iterator[str]:
        """Identifiers that come again, and columns of texts of which most are numbers."""
        places = zip(self._rows, self._ids, strict=True)
        first = dict(reversed(list(zip(self._ids, self._rows, strict=True))))
        again = [(row, name) for row, name in places if first[name] != row]
        if again:
            yield f"{len(again)} rows have the {ID} of an earlier one: {_shown(again)}"
        for name in texts:
            filled = [(row, text) for row, text in zip(self._rows, self._columns[name], strict=True) if text.strip()]
            words = [(row, text) for row, text in filled if _numbers([text]) is None]
            if 2 * len(words) < len(filled):
                yield (
                    f"the column {name!r} is no property, since {len(words)} of its values are no numbers: "
                    f"{_shown(words)}; leave them empty if they are missing"
                )


def _shown(rows: Sequence[tuple[int, str]]) -> str:
    """The first few rows and what stands there."""
    more = len(rows) - SHOWN
    named = ", ".join(f"row {row} ({text!r})" for row, text in rows[:SHOWN])
    return named + (f" and {more} more" if more > 0 else "")


def _numbers(texts: list[str]) -> NDArray[np.float64] | None:
    """A column as numbers, NaN where empty; None if it holds other texts, or nothing."""
    try:
        values = np.array([float(text) if text.strip() else np.nan for text in texts])
    except ValueError:
        return None
    return values if any(text.strip() for text in texts) else None
