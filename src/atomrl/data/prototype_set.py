"""Reads the finished crystal set."""

from __future__ import annotations

import hashlib
import lzma
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from atomrl.checkpoints.folder import refuse_pointer
from atomrl.core.records import Structures
from atomrl.data.prototype_notes import read_notes
from atomrl.util.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets" / "prototypes"
SET_FILE, CARD_FILE, HULL_FILE = "prototypes.safetensors.xz", "prototypes.json", "hull.json"
SPLITS = ("train", "val", "test")
REMEDY = "make it with `atomrl data prototypes build` and `finish`"


@dataclass(frozen=True)
class PrototypeSet:
    """M relaxed crystals with A atoms in all, ragged: crystal i has the atoms `offsets[i]:offsets[i + 1]`.

    Attributes:
        numbers: atomic numbers, (A,) uint8.
        frac_coords: in [0, 1), (A, 3) float32.
        lattices: Niggli-reduced vectors in rows, Å, (M, 3, 3) float32.
        offsets: (M + 1,) int64.
        energies: CHGNet, eV/atom, (M,) float32.
        formation_energies: relative to the set's elements, eV/atom, (M,) float32.
        energies_above_hull: relative to the set's own hull, eV/atom, (M,) float32.
        spacegroups: international numbers, (M,) uint8.
        prototype_ids: place in `prototypes`, (M,) int16.
        split_ids: place in `SPLITS`, (M,) uint8.
        prototypes: labels, see `library.prototype_structures`.
        card: how the set was made, and its statistics.
    """

    numbers: Tensor
    frac_coords: Tensor
    lattices: Tensor
    offsets: Tensor
    energies: Tensor
    formation_energies: Tensor
    energies_above_hull: Tensor
    spacegroups: Tensor
    prototype_ids: Tensor
    split_ids: Tensor
    prototypes: tuple[str, ...]
    card: dict[str, Any]

    def __len__(self) -> int:
        return len(self.lattices)

    @property
    def sizes(self) -> Tensor:
        """Atoms per crystal, (M,) int64."""
        return self.offsets.diff()

    def rows(self, split: str) -> Tensor:
        """Numbers of the crystals of `train`, `val` or `test`, ascending, int64."""
        return torch.nonzero(self.split_ids == SPLITS.index(split)).squeeze(1)

    def structures(self, rows: Tensor) -> Structures:
        """These crystals, padded; positions are Cartesian, Å, float32.

        Args:
            rows: numbers of crystals, (B,) int64.
        """
        sizes = self.sizes[rows]
        slots = torch.arange(int(sizes.max()) if len(rows) else 0)
        mask = slots < sizes[:, None]
        atoms = torch.where(mask, self.offsets[rows, None] + slots, 0)
        cell = self.lattices[rows]
        positions = (self.frac_coords[atoms] @ cell) * mask[..., None]
        return Structures(self.numbers[atoms].long() * mask, positions, mask, cell)


def load_prototypes(folder: Path = ASSETS) -> PrototypeSet:
    """The crystal set, by default the one that ships with the package.

    Args:
        folder: with `prototypes.safetensors.xz` and its card `prototypes.json`.

    Raises:
        UserError: a file is missing, damaged or a Git LFS pointer, or the set is not the one that the card describes.
    """
    for name in (SET_FILE, CARD_FILE):
        if not (folder / name).is_file():
            raise UserError(f"no {name} in {folder}; {REMEDY}")
        refuse_pointer(folder / name)
    card = read_notes(folder / CARD_FILE, REMEDY, {"sha256": str, "prototypes": list})
    content = (folder / SET_FILE).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card["sha256"]:
        raise UserError(
            f"{folder / SET_FILE} has SHA-256 {found[:12]}..., its card says {card['sha256'][:12]}...; "
            "the file is damaged or belongs to another card: make both again"
        )
    arrays = load(lzma.decompress(content))
    expected = {entry.name for entry in fields(PrototypeSet)} - {"prototypes", "card"}
    if arrays.keys() != expected:
        raise UserError(
            f"{folder / SET_FILE} was written by another version: it differs by the arrays "
            f"{sorted(arrays.keys() ^ expected)}; {REMEDY}"
        )
    return PrototypeSet(**arrays, prototypes=tuple(card["prototypes"]), card=card)


def hull_file(name: str) -> str:
    """Name of the file, beside the set's own hull, for a force field of this name, e.g. `sevennet-0`."""
    return f"hull-{name}.json"
