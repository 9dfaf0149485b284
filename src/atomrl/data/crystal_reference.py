"""What generated crystals are compared with: a set of known crystals, and the hull of their energies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atomrl.chemistry.hull import Hull
from atomrl.data.packed_crystals import SHIPPED, PackedCrystals, load_training
from atomrl.data.prototype_set import ASSETS, HULL_FILE
from atomrl.data.reference_file import REFERENCE_FILE, load_reference
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
        """The crystals of a source.

        Args:
            source: a folder of `atomrl data reference` with a reference set; else the training crystals of what
                `load_training` takes.

        Raises:
            UserError: as `load_training`, or the reference set is damaged.
        """
        folder = ASSETS if source == SHIPPED else Path(source)
        if (folder / REFERENCE_FILE).is_file():
            crystals = load_reference(folder / REFERENCE_FILE)
            return cls(crystals, f"{len(crystals)} crystals of {source}", folder)
        crystals = load_training(source)
        return cls(crystals, f"{len(crystals)} training crystals of {source}", folder)

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
            raise UserError(
                f"no hull at {file}: energies need one of the same force field, which `atomrl data reference` makes"
            )
        return Hull.load(file)
