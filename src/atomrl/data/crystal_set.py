"""Crystals read from a file, with their columns and the rows that are not among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from atomrl.data.number_columns import SHOWN
from atomrl.structures.cells import Crystal
from atomrl.util.errors import UserError
from atomrl.util.files import write_json, write_whole


@dataclass(frozen=True)
class FailedRow:
    """A row that is not in the set.

    Attributes:
        row: its number in the file, 1 for the first after the header.
        material_id: its identifier.
        reason: why, as `cif.parse_cif` says it, or `no_cif`, `timeout`, `worker_died`, or `unsound: ` and what
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
        properties: columns of finite numbers, {name: (C,) float64}, NaN where missing (`number_columns.MISSING`).
        ids: `material_id` of each crystal.
        labels: other columns, {name: C texts}; columns of further CIFs (`cif.conv`) are left out.
        failures: rows of the file that are not here.
        remarks: what else a reader should know, e.g. identifiers that come several times.
        refused: why a column is among the labels, not the properties, {name: reason}.
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
    refused: Mapping[str, str] = field(default_factory=dict)

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
        kinds: dict[str, list[FailedRow]] = {}
        for failure in self.failures:
            kinds.setdefault(failure.reason.partition(":")[0], []).append(failure)
        ordered = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
        counts = ", ".join(f"{len(rows)} {kind}" for kind, rows in ordered)
        named = "; ".join(_named(rows) for _, rows in ordered)
        return f"{len(self)} of {total} rows read, {len(self.failures)} not ({counts}): {named}"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            UserError: a file is damaged or cannot be read.
        """
        try:
            arrays = load_file(path)
            record = json.loads(path.with_suffix(".json").read_text())
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it, and it is made again") from error
        return cls(
            **{name: arrays.pop(name) for name in ("numbers", "frac_coords", "lattices", "offsets")},
            properties={name: arrays[f"property/{name}"] for name in record["properties"]},
            ids=tuple(record["ids"]),
            labels={name: tuple(texts) for name, texts in record["labels"].items()},
            failures=tuple(FailedRow(*failure) for failure in record["failures"]),
            remarks=tuple(record["remarks"]),
            refused=record["refused"],
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
            "refused": self.refused,
        }
        write_json(path.with_suffix(".json"), record)


def _named(failures: Sequence[FailedRow]) -> str:
    """The first few of a kind."""
    more = len(failures) - SHOWN
    named = "; ".join(f"row {f.row} ({f.material_id}): {f.reason}" for f in failures[:SHOWN])
    return named + (f"; and {more} more" if more > 0 else "")
