"""One form for the crystals of every source, and the sets that a backbone is trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.core.records import Structures
from atomrl.data.crystal_csv import load_crystal_csv
from atomrl.data.crystal_set import CrystalSet
from atomrl.data.prototype_set import ASSETS, SET_FILE, PrototypeSet, load_prototypes
from atomrl.data.qm9 import fingerprint_of
from atomrl.structures.cells import Crystal
from atomrl.structures.tensors import CrystalTensors
from atomrl.util.errors import UserError

SHIPPED = "prototypes"
CSV_FILES = {"train": "train.csv", "val": "val.csv"}
TEST = "test"

PROTOTYPE_PROPERTIES = {
    "energy_per_atom": "energies",
    "formation_energy_per_atom": "formation_energies",
    "e_above_hull": "energies_above_hull",
}
"""Properties of the prototype set, by the names that MP-20's columns have: eV/atom, by CHGNet."""


@dataclass(frozen=True)
class PackedCrystals:
    """C crystals of different sizes in their canonical (Niggli) form, packed atom after atom.

    Attributes:
        numbers: atomic numbers, (atoms,) int64.
        frac_coords: in [0, 1), (atoms, 3) float32.
        lattices: lattice vectors in rows, Å, (C, 3, 3) float32.
        offsets: crystal k holds the atoms offsets[k]:offsets[k + 1], (C + 1,) int64.
        properties: {name: (C,) float64}, NaN where unknown. Of a CSV file its columns of numbers; of the prototype set
            those of `PROTOTYPE_PROPERTIES`.
        refused: other columns of a CSV file, and why they are no properties, {name: reason}.
        labels: {name: C texts}. Of a CSV file its other columns; of the prototype set `prototype` and `spacegroup`.
    """

    numbers: NDArray[np.int64]
    frac_coords: NDArray[np.float32]
    lattices: NDArray[np.float32]
    offsets: NDArray[np.int64]
    properties: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: CrystalSet | PrototypeSet) -> PackedCrystals:
        """All crystals of a set."""
        if isinstance(source, PrototypeSet):
            columns = {name: getattr(source, attribute) for name, attribute in PROTOTYPE_PROPERTIES.items()}
            prototypes = tuple(source.prototypes[number] for number in source.prototype_ids.tolist())
            labels = {"prototype": prototypes, "spacegroup": tuple(map(str, source.spacegroups.tolist()))}
        else:
            columns, labels = dict(source.properties), dict(source.labels)
        return cls(
            np.asarray(source.numbers, dtype=np.int64),
            np.asarray(source.frac_coords),
            np.asarray(source.lattices),
            np.asarray(source.offsets),
            {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()},
            {} if isinstance(source, PrototypeSet) else source.refused,
            {name: np.array(texts, dtype=object) for name, texts in labels.items()},
        )

    @classmethod
    def packed(cls, crystals: Sequence[Crystal]) -> PackedCrystals:
        """One or more crystals, as they are, without properties."""
        return cls(
            np.concatenate([crystal.numbers for crystal in crystals]),
            np.concatenate([crystal.frac_coords for crystal in crystals]).astype(np.float32),
            np.stack([crystal.lattice for crystal in crystals]).astype(np.float32),
            np.cumsum([0, *(len(crystal.numbers) for crystal in crystals)]),
        )

    @classmethod
    def joined(cls, parts: Sequence[PackedCrystals]) -> PackedCrystals:
        """The crystals of several sets, one after the other, without properties."""
        sizes = np.concatenate([part.sizes for part in parts])
        return cls(
            np.concatenate([part.numbers for part in parts]),
            np.concatenate([part.frac_coords for part in parts]),
            np.concatenate([part.lattices for part in parts]),
            np.concatenate([[0], np.cumsum(sizes)]),
        )

    def __len__(self) -> int:
        return len(self.lattices)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Atoms per crystal, (C,)."""
        return np.diff(self.offsets)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """`digest` of each crystal."""
        return tuple(self.digest(row) for row in range(len(self)))

    def digest(self, row: int) -> str:
        """Hash of one crystal: its atoms, their places and its lattice."""
        atoms = slice(self.offsets[row], self.offsets[row + 1])
        parts = (self.numbers[atoms], self.frac_coords[atoms], self.lattices[row])
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:20]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all crystals in their order."""
        return fingerprint_of(self.numbers, self.frac_coords, self.lattices, self.offsets)

    @property
    def properties_fingerprint(self) -> str:
        """Hash of the values of all properties, one after the other."""
        return fingerprint_of(*self.properties.values())

    def histogram(self) -> dict[int, int]:
        """Crystals by number of atoms, ascending."""
        return dict(sorted(Counter(self.sizes.tolist()).items()))

    def select(self, rows: NDArray[np.int64]) -> PackedCrystals:
        """The crystals at these rows, in this order."""
        sizes = self.sizes[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        atoms = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        properties = {name: values[rows] for name, values in self.properties.items()}
        labels = {name: texts[rows] for name, texts in self.labels.items()}
        return PackedCrystals(
            self.numbers[atoms], self.frac_coords[atoms], self.lattices[rows], offsets, properties, self.refused, labels
        )

    def crystal(self, row: int) -> Crystal:
        """One crystal."""
        atoms = slice(self.offsets[row], self.offsets[row + 1])
        return Crystal(
            self.numbers[atoms], self.frac_coords[atoms].astype(np.float64), self.lattices[row].astype(np.float64)
        )

    def draw(self, count: int, seed: int) -> PackedCrystals:
        """At most `count` crystals of all sizes, the same ones for a seed."""
        rng = np.random.Generator(np.random.PCG64(seed))
        return self.select(rng.permutation(len(self))[:count])

    def padded(self) -> CrystalTensors:
        """All crystals as one batch, padded to the largest; the mask is float32."""
        sizes = self.sizes
        mask = np.arange(sizes.max())[None, :] < sizes[:, None]
        numbers = np.zeros(mask.shape, dtype=np.int64)
        frac_coords = np.zeros((*mask.shape, 3), dtype=np.float32)
        numbers[mask], frac_coords[mask] = self.numbers, self.frac_coords
        return CrystalTensors(
            torch.from_numpy(numbers),
            torch.from_numpy(frac_coords),
            torch.tensor(self.lattices),
            torch.from_numpy(mask.astype(np.float32)),
        )

    def structures(self) -> Structures:
        """All crystals as one padded batch with Cartesian positions, Å."""
        batch = self.padded()
        mask = batch.mask > 0
        return Structures(batch.numbers, (batch.frac_coords @ batch.cell) * mask[..., None], mask, batch.cell)


@dataclass(frozen=True)
class CrystalSplits:
    """What a backbone is trained and validated on, neither empty."""

    train: PackedCrystals
    validation: PackedCrystals


def load_splits(source: str) -> CrystalSplits:
    """The training and validation crystals of a source.

    Args:
        source: `prototypes` for the set that ships with the package, or a folder: with such a set, or with `train.csv`
            and `val.csv` in the field's format.

    Raises:
        UserError: there is no such source, a file of it is damaged, or a split is empty.
    """
    folder = _folder(source)
    if _is_prototypes(folder):
        parts = _of_prototypes(folder, tuple(CSV_FILES))
    elif all((folder / name).exists() for name in CSV_FILES.values()):
        parts = {split: PackedCrystals.of(load_crystal_csv(folder / name)) for split, name in CSV_FILES.items()}
    else:
        wanted = " and ".join(CSV_FILES.values())
        raise UserError(f"no crystals in {source}: give `{SHIPPED}`, or a folder with {SET_FILE} or with {wanted}")
    for split, part in parts.items():
        if not len(part):
            raise UserError(f"{source}: its split {split} holds no crystal")
    return CrystalSplits(parts["train"], parts["val"])


def load_training(source: str) -> PackedCrystals:
    """The training crystals of a source alone: of a folder of CSV files only `train.csv` is needed and read.

    Args:
        source: as `load_splits` takes it, but that `val.csv` may be missing.

    Raises:
        UserError: as `load_splits`.
    """
    folder = _folder(source)
    file = folder / CSV_FILES["train"]
    if file.exists() and not _is_prototypes(folder):
        return PackedCrystals.of(load_crystal_csv(file))
    return load_splits(source).train


def load_test(source: str) -> PackedCrystals | None:
    """The crystals of a source that no training sees: of the split `test`, or of `test.csv`; None if it has none.

    Args:
        source: as `load_splits` takes it.

    Raises:
        UserError: the file is damaged.
    """
    folder = _folder(source)
    if _is_prototypes(folder):
        found = _of_prototypes(folder, (TEST,))[TEST]
        return found if len(found) else None
    file = folder / f"{TEST}.csv"
    return PackedCrystals.of(load_crystal_csv(file)) if file.exists() else None


def _folder(source: str) -> Path:
    return ASSETS if source == SHIPPED else Path(source)


def _is_prototypes(folder: Path) -> bool:
    return (folder / SET_FILE).exists() or folder == ASSETS


def _of_prototypes(folder: Path, splits: Sequence[str]) -> dict[str, PackedCrystals]:
    """Splits of a prototype set."""
    crystals = load_prototypes(folder)
    packed = PackedCrystals.of(crystals)
    return {split: packed.select(crystals.rows(split).numpy()) for split in splits}
