"""A set of the user's own molecules, checked, packed, and split into training and held-out ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from atomrl.core.records import Structures
from atomrl.data.batches import pad
from atomrl.data.molecule_files import HEAVIEST, Entry, are_elements, read_entries
from atomrl.data.qm9 import MoleculeSet
from atomrl.structures.molecules import check_geometries
from atomrl.structures.padding import alike
from atomrl.util.errors import UserError

BLOCK = 1024
"""Entries that are read, checked and packed at a time."""

PAIRS = 2_000_000
"""Pairs of atoms that are checked at a time."""

SHOWN = 5
"""Entries that a report names."""

REASONS = {
    "no_atoms": "it has no atoms",
    "nonfinite": "a coordinate is not finite",
    "element": "an atomic number is none of an element",
    "exploded": "an atom is more than 5 Å from every other one, or the molecule longer than 50 Å",
    "overlap": "two atoms are closer than 0.4 Å",
}
"""What `check_geometries` says, in words."""


@dataclass(frozen=True)
class OwnMolecules:
    """What was read.

    Attributes:
        molecules: those that can be used; `ids` are their places among all entries, from 1.
        left_out: (entry, reason) of each other one.
        remarks: {what a user should know of some molecules: how many}.
    """

    molecules: MoleculeSet
    left_out: tuple[tuple[str, str], ...]
    remarks: Counter[str]

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements, by atomic number."""
        return elements_of(self.molecules)

    def report(self) -> str:
        """How many entries were read, which were not and why, and the remarks, in one line."""
        total = len(self.molecules) + len(self.left_out)
        parts = [f"{len(self.molecules):,} of {total:,} molecules read, elements {', '.join(self.elements)}"]
        if self.left_out:
            named = [f"{where}: {reason}" for where, reason in self.left_out[:SHOWN]]
            more = [f"and {len(self.left_out) - SHOWN:,} more"] if len(self.left_out) > SHOWN else []
            parts.append(f"left out {len(self.left_out):,}: " + ", ".join([*named, *more]))
        parts += [f"{count:,} {remark}" for remark, count in self.remarks.items()]
        return "; ".join(parts)


def read_own(path: Path) -> OwnMolecules:
    """Read and check all molecules of a file or a folder.

    Raises:
        UserError: as `read_entries`, or no molecule is left.
    """
    entries = iter(read_entries(path))
    parts: list[MoleculeSet] = []
    left_out: list[tuple[str, str]] = []
    remarks: Counter[str] = Counter()
    seen = 0
    while block := list(islice(entries, BLOCK)):
        reasons = _checked(block)
        kept = [row for row, reason in enumerate(reasons) if reason is None]
        left_out += [(entry.where, why) for entry, why in zip(block, reasons, strict=True) if why is not None]
        remarks.update(remark for row in kept if (remark := block[row].remark) is not None)
        if kept:
            parts.append(_packed([block[row] for row in kept], np.array(kept) + seen + 1))
        seen += len(block)
    if not parts:
        first = f"; the first: {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"data={path}: none of its {seen:,} entries is a molecule{first}")
    return OwnMolecules(_joined(parts), tuple(left_out), remarks)


def split_own(molecules: MoleculeSet, held_out: float, seed: int) -> dict[str, MoleculeSet]:
    """`train` and `validation`, by a seeded permutation of rows.

    Args:
        molecules: all of them.
        held_out: share of them for validation; above 0, at least one molecule.
        seed: of the permutation.

    Raises:
        UserError: nothing is left to train on.
    """
    count = min(len(molecules), max(1, round(held_out * len(molecules)))) if held_out else 0
    if count == len(molecules):
        raise UserError(f"held_out={held_out} of {len(molecules)} molecules leaves none to train on: lower it")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(molecules))
    return {
        "train": molecules.select(np.sort(order[count:])),
        "validation": molecules.select(np.sort(order[:count])),
    }


def elements_of(molecules: MoleculeSet) -> tuple[str, ...]:
    """Symbols of a set's elements, by atomic number."""
    return tuple(chemical_symbols[number] for number in np.unique(molecules.numbers))


def _checked(block: Sequence[Entry]) -> list[str | None]:
    """Why each entry cannot be used; None where it can."""
    reasons = [entry.reason or (None if len(entry.numbers) else REASONS["no_atoms"]) for entry in block]
    sound = [row for row, reason in enumerate(reasons) if reason is None]
    for row in sound:  # before they are packed, as bytes
        if not are_elements(block[row].numbers):
            reasons[row] = REASONS["element"]
    sound = [row for row in sound if reasons[row] is None]
    for places in alike([len(block[row].numbers) for row in sound], PAIRS):
        rows = [sound[place] for place in places]
        batch = pad(_packed([block[row] for row in rows], np.array(rows)))
        found = check_geometries(Structures(batch.numbers, batch.positions, batch.mask.bool()), range(1, HEAVIEST + 1))
        for row, reason in zip(rows, found, strict=True):
            reasons[row] = None if reason is None else REASONS[reason]
    return reasons


def _packed(entries: Sequence[Entry], ids: NDArray[np.int64]) -> MoleculeSet:
    """Entries as a set."""
    offsets = np.concatenate([[0], np.cumsum([len(entry.numbers) for entry in entries])]).astype(np.int64)
    numbers = np.concatenate([entry.numbers for entry in entries]).astype(np.uint8)
    with np.errstate(over="ignore"):  # becomes infinite, which the check finds
        positions = np.concatenate([entry.positions for entry in entries]).astype(np.float32)
    return MoleculeSet(numbers, positions, offsets, ids.astype(np.int32))


def _joined(parts: Sequence[MoleculeSet]) -> MoleculeSet:
    """Sets one after the other."""
    sizes = np.concatenate([part.sizes for part in parts])
    return MoleculeSet(
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([part.ids for part in parts]),
    )
