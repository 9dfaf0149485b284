"""Known crystals out of what a user has: CSV files, pymatgen's entries, folders of either, the shipped set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atomrl.data.crystal_csv import load_crystal_csv
from atomrl.data.crystal_entries import ENDINGS, load_crystal_entries
from atomrl.data.packed_crystals import SHIPPED, PackedCrystals
from atomrl.data.prototype_set import ASSETS, SET_FILE, SPLITS, load_prototypes
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers

TRAIN = "train"


@dataclass(frozen=True)
class Phases:
    """C known crystals.

    Attributes:
        crystals: all of them.
        ids: where each comes from, `source:id`.
        training: places of those that novelty and diversity are measured against.
    """

    crystals: PackedCrystals
    ids: tuple[str, ...]
    training: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


def read_phases(source: str, workers: Workers | int | None = None) -> Phases:
    """The crystals of a source.

    Args:
        source: `prototypes`; a folder with a set as that one, or with `train.csv`, and perhaps `val.csv` and
            `test.csv`: of both the training split counts for novelty; a CSV file with the columns `material_id` and
            `cif`, or a JSON file with pymatgen's entries: of these all crystals do.
        workers: of the run, or a number of processes; one per core that this process may use if None.

    Raises:
        UserError: there is no such source, or a file of it cannot be read or holds no crystal.
    """
    place = ASSETS if source == SHIPPED else Path(source)
    if (place / SET_FILE).is_file():
        found = load_prototypes(place)
        ids = tuple(f"{place.name}:{row}" for row in range(len(found)))
        return Phases(PackedCrystals.of(found), ids, tuple(found.rows(TRAIN).tolist()))
    if place.is_dir():
        files = [(split, place / f"{split}.csv") for split in SPLITS if (place / f"{split}.csv").is_file()]
        if not files or files[0][0] != TRAIN:
            raise UserError(f"no crystals in {source}: a folder needs {TRAIN}.csv, or name files")
        parts = [_of_file(file, workers) for _, file in files]
        return joined(parts, len(parts[0]))
    return _of_file(place, workers)


def joined(parts: Sequence[Phases], training: int | None = None) -> Phases:
    """Several as one.

    Args:
        parts: at least one.
        training: the first so many are those that novelty is measured against; those of each part if None.
    """
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part))
    places = [start + place for start, part in zip(starts, parts, strict=False) for place in part.training]
    return Phases(
        PackedCrystals.joined([part.crystals for part in parts]),
        tuple(name for part in parts for name in part.ids),
        tuple(places if training is None else range(training)),
    )


def _of_file(path: Path, workers: Workers | int | None) -> Phases:
    """All crystals of a file.

    Raises:
        UserError: it has an ending that says nothing, or cannot be read.
    """
    if not path.name.endswith((".csv", *ENDINGS)):
        raise UserError(
            f"{path}: no such folder, and no name of a file of crystals; give a folder, a .csv with material_id and "
            f"cif, or a {' or '.join(ENDINGS)} of pymatgen's entries"
        )
    read = load_crystal_csv if path.suffix == ".csv" else load_crystal_entries
    found = read(path, workers=workers)
    ids = tuple(f"{path.name}:{name}" for name in found.ids)
    return Phases(PackedCrystals.of(found), ids, tuple(range(len(found))))
