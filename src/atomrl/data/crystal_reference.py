"""What generated crystals are compared with: a set of known crystals, and the hull of their energies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from atomrl.chemistry.hull import Hull
from atomrl.data.packed_crystals import SHIPPED, PackedCrystals, load_splits
from atomrl.data.prototype_set import ASSETS, HULL_FILE
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class CrystalReference:
    """Known crystals and where their hulls are.

    Attributes:
        crystals: the training split.
        name: for the record.
        folder: of the set; its hulls are in it.
    """

    crystals: PackedCrystals
    name: str
    folder: Path

    @classmethod
    def load(cls, source: str) -> CrystalReference:
        """The training crystals of a source, see `load_splits`.

        Raises:
            UserError: as `load_splits`.
        """
        crystals = load_splits(source).train
        folder = ASSETS if source == SHIPPED else Path(source)
        return cls(crystals, f"{len(crystals)} training crystals of {source}", folder)

    @cached_property
    def digest(self) -> str:
        """A hash of all crystals."""
        held, digest = self.crystals, hashlib.sha256()
        for array in (held.numbers, held.frac_coords, held.lattices, held.offsets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def hull(self, path: str | None = None, name: str = HULL_FILE) -> Hull:
        """A hull.

        Args:
            path: of the file; None: `name` in the set's folder; `prototypes`: in that of the shipped set.
            name: `hull.json` is that of CHGNet.

        Raises:
            UserError: there is none.
        """
        file = {None: self.folder / name, SHIPPED: ASSETS / name}.get(path) or Path(str(path))
        if not file.is_file():
            raise UserError(f"no hull at {file}: energies need one of the same force field, see docs/crystals.md")
        return Hull.load(file)
