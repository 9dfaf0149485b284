"""QM9 (130,831 molecules, B3LYP geometries) from the PyPI package `qm9pack` into one cached tensor file.

Source: Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22; packaged in three CSV files with Å geometries.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
PARTS = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
MOLECULES = 130_831
TRAIN, VALIDATION = 100_000, 17_748
SPLIT_SEED = 0
CACHE_VERSION = 1
BRACKETS = str.maketrans("", "", "[]")


@dataclass(frozen=True)
class MoleculeSet:
    """Molecules of different sizes, packed atom after atom.

    Attributes:
        numbers: atomic numbers, (atoms,) uint8.
        positions: Å, (atoms, 3) float32.
        offsets: molecule k holds the atoms offsets[k]:offsets[k + 1], (molecules + 1,) int64.
        ids: identifier of each molecule in its source, (molecules,) int32.
        properties: {name: (molecules,) float64}, those that were asked for, see `qm9_properties`.
    """

    numbers: NDArray[np.uint8]
    positions: NDArray[np.float32]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]
    properties: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Atoms per molecule, (molecules,)."""
        return np.diff(self.offsets)

    @property
    def fingerprint(self) -> str:
        """Hash of all molecules in their order."""
        return fingerprint_of(self.numbers, self.positions, self.offsets)

    def select(self, rows: NDArray[np.int64]) -> MoleculeSet:
        """The molecules at these rows, in this order."""
        sizes = self.sizes[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        atoms = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        properties = {name: values[rows] for name, values in self.properties.items()}
        return MoleculeSet(self.numbers[atoms], self.positions[atoms], offsets, self.ids[rows], properties)


def fingerprint_of(*arrays: NDArray[Any]) -> str:
    """Hash of what arrays hold, in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Folder for prepared data: $ATOMRL_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ATOMRL_CACHE") or Path(base) / "atomrl")


def load_qm9(cache: Path | None = None) -> MoleculeSet:
    """All of QM9, from the cached tensor file, which is built on the first call (under a minute).

    Raises:
        UserError: `qm9pack` is not installed and nothing is cached, or what is cached is damaged.
    """
    arrays = cached((cache or cache_folder()) / f"qm9-v{CACHE_VERSION}.safetensors", _build)
    return MoleculeSet(arrays["numbers"], arrays["positions"], arrays["offsets"], arrays["ids"])


def cached(path: Path, build: Callable[[Path], None]) -> dict[str, NDArray[Any]]:
    """The arrays of a file, which is built if it is not there.

    Raises:
        UserError: it is damaged, or as `build`.
    """
    if not path.exists():
        build(path)
    try:
        arrays: dict[str, NDArray[Any]] = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, and it is made again") from error
    return arrays


def split(molecules: MoleculeSet) -> dict[str, MoleculeSet]:
    """The fixed split into train (100,000), validation (17,748) and test (13,083), by seeded permutation of rows.

    `first` and `second` are halves of the training molecules: what a model learned from one can be judged by a network
    that saw only the other.
    """
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(molecules))
    first, second, validation, test = np.split(order, [TRAIN // 2, TRAIN, TRAIN + VALIDATION])
    rows = {"train": order[:TRAIN], "first": first, "second": second, "validation": validation, "test": test}
    return {part: molecules.select(np.sort(chosen)) for part, chosen in rows.items()}


def size_histogram(molecules: MoleculeSet) -> dict[int, int]:
    """Number of molecules by number of atoms."""
    sizes, counts = np.unique(molecules.sizes, return_counts=True)
    return {int(size): int(count) for size, count in zip(sizes, counts, strict=True)}


def _build(path: Path) -> None:
    """Read the CSV files and write the tensor file as a whole."""
    numbers: list[NDArray[np.uint8]] = []
    positions: list[NDArray[np.float32]] = []
    ids: list[int] = []
    for identifier, symbols, coordinates in _rows():
        numbers.append(np.array([ATOMIC_NUMBERS[symbol] for symbol in symbols], dtype=np.uint8))
        positions.append(coordinates)
        ids.append(identifier)
    if len(ids) != MOLECULES:
        raise UserError(f"qm9pack holds {len(ids)} molecules, expected {MOLECULES}: reinstall qm9pack==1.0.3")
    arrays: dict[str, NDArray[Any]] = {
        "numbers": np.concatenate(numbers),
        "positions": np.concatenate(positions),
        "offsets": np.concatenate([[0], np.cumsum([len(n) for n in numbers])]).astype(np.int64),
        "ids": np.array(ids, dtype=np.int32),
    }
    write_whole(path, save(arrays))


def _rows() -> Iterator[tuple[int, list[str], NDArray[np.float32]]]:
    """(index, symbols, coordinates in Å) of each molecule."""
    for index, elements, geometry in columns("Index", "Elements", "XYZ_Ang"):
        symbols = elements.strip("[]").replace("'", "").split(",")
        values = geometry.translate(BRACKETS).split(",")
        yield int(index), symbols, np.array(values, dtype=np.float32).reshape(-1, 3)


def columns(*names: str) -> Iterator[list[str]]:
    """The cells of these columns for each molecule, streamed from the CSV files.

    Raises:
        UserError: `qm9pack` is not installed.
    """
    found = importlib.util.find_spec("qm9pack")
    if found is None or found.origin is None:
        raise UserError("QM9 needs the package qm9pack, which is not installed: pip install 'atomrl[data]'")
    csv.field_size_limit(1 << 24)
    for part in PARTS:
        with (Path(found.origin).parent / "data" / part).open(newline="") as file:
            reader = csv.reader(file)
            header = next(reader)
            places = [header.index(name) for name in names]
            for row in reader:
                yield [row[place].replace("*^", "e") for place in places]  # 1.2*^-6, as Mathematica writes it
