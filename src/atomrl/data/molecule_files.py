"""Molecules of the user's own: SDF, extended XYZ, NumPy arrays and the conformers of GEOM-Drugs, entry after entry.

An entry that cannot be read costs itself only: it is named, left out and counted. Readers stream; what is kept is one
packed set. Positions are Å.

| ending | what | read by |
|---|---|---|
| `.sdf`, `.mol` | entries end with `$$$$`; explicit atoms and their 3-D coordinates | RDKit |
| `.xyz`, `.extxyz` | a frame for each molecule | ASE |
| `.npz` | `numbers` (M, N) integers, 0 where padded; `positions` (M, N, 3) | NumPy |
| `.npy` | GEOM-Drugs as EDM prepares it: rows [conformer, atomic number, x, y, z], conformer after conformer | NumPy |
"""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from atomrl.data.number_columns import SHOWN
from atomrl.util.errors import UserError, first_line

log = logging.getLogger(__name__)

TEXT = "utf-8-sig"
"""Encoding of the files: UTF-8, with or without the mark at the beginning that some programs write."""

END_OF_ENTRY = "$$$$"
END_OF_MOLECULE, BEGIN_OF_PROPERTIES = "M  END", ">"
"""Of an SDF's entry: the line after its bonds, and what lines of its properties begin with."""
CHARGED = "carry a charge, and are taken as neutral"
CHARGES = ("charge", "total_charge")
"""How extended XYZ calls the charge of a whole frame."""
HEAVIEST = len(chemical_symbols) - 1
ROW = ("conformer", "atomic number", "x", "y", "z")
KEYS = ("numbers", "positions")
NO_FRAME = (OSError, ValueError, IndexError, TypeError, AttributeError)
"""What ASE raises for a frame that it cannot read."""
NO_ARRAY = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for a file that is truncated, holds objects or is something else."""


@dataclass(frozen=True)
class Entry:
    """One entry of a file: a molecule, or a crystal where both are read, or why it is none.

    Attributes:
        where: file, number of the entry and its title.
        numbers: atomic numbers, (N,) int64; empty without a molecule.
        positions: Å, (N, 3) float64.
        cell: of a crystal, lattice vectors in rows, Å, (3, 3); None for a molecule.
        reason: why it cannot be used; None where it can.
        remark: what a user should know of one that is used.
    """

    where: str
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    reason: str | None = None
    remark: str | None = None
    cell: NDArray[np.float64] | None = None

    @classmethod
    def broken(cls, where: str, reason: str) -> Entry:
        """An entry without a molecule."""
        return cls(where, np.zeros(0, dtype=np.int64), np.zeros((0, 3)), reason)


def read_entries(path: Path) -> Iterator[Entry]:
    """All entries of a file, or of all files in a folder and those below it, in the order of their names.

    Raises:
        UserError: nothing is there, a file is of another format, or cannot be read at all.
    """
    if path.is_dir():
        files = files_below(path, lambda file: file.suffix.lower() in IN_FOLDERS)
        if not files:
            raise UserError(f"data={path}: the folder holds no {', '.join(IN_FOLDERS)}; a .npy file is given itself")
        for file in files:
            yield from read_entries(file)
        return
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"data={path}: the ending must be one of {', '.join(READERS)}; or give a folder of such files")
    try:
        yield from map(_molecule, reader(path))
    except OSError as error:
        raise UserError(f"data={path} cannot be read: {error.strerror or error}; give a file or a folder") from error


def files_below(folder: Path, is_read: Callable[[Path], bool]) -> list[Path]:
    """Files in a folder and those below it, in the order of their names; the log names those that are not read.

    Hidden ones, and those in hidden folders, are nobody's data: copies in `.ipynb_checkpoints`, `._a.cif` of macOS.

    Args:
        folder: to search.
        is_read: whether a file is wanted, by its name.
    """
    places = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
    seen = [place for place in places if not any(part.startswith(".") for part in place.parts)]
    if others := [str(place) for place in seen if not is_read(place)]:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        named = ", ".join(others[:SHOWN]) + more
        log.warning("%s: %d of %d files have other endings and are not read: %s", folder, len(others), len(seen), named)
    return [folder / place for place in seen if is_read(place)]


def _molecule(entry: Entry) -> Entry:
    """The entry, if it is no crystal."""
    return entry if entry.cell is None else Entry.broken(entry.where, "it is periodic, so not a molecule")


def read_sdf(path: Path) -> Iterator[Entry]:
    """Entries of an SDF, each read by itself, so that a broken one does not cost the next."""
    with path.open(encoding="utf-8", errors="replace") as file, BlockLogs():
        for number, text in enumerate(sdf_texts(file), start=1):
            title = text.partition("\n")[0].strip()
            where = f"{path.name} entry {number}" + (f" ({title})" if title else "")
            yield _from_mol_block(where, text)


def sdf_texts(file: TextIO) -> Iterator[str]:
    """The text of each entry, without the mark that ends it."""
    lines: list[str] = []
    for line in file:
        if line.startswith(END_OF_ENTRY):
            yield "".join(lines)
            lines = []
        else:
            lines.append(line)
    if "".join(lines).strip():  # the file ends without the mark, as a .mol does
        yield "".join(lines)


def _from_mol_block(where: str, text: str) -> Entry:
    """One entry of an SDF; as it is written, without sanitising."""
    if _molecules_in(text) > 1:
        return Entry.broken(where, f"it holds two molecules: {END_OF_ENTRY} between them is missing")
    mol = Chem.MolFromMolBlock(text, sanitize=False, removeHs=False)
    if mol is None:
        return Entry.broken(where, "RDKit cannot read it")
    if not mol.GetNumAtoms():
        return Entry.broken(where, "it has no atoms")
    if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
        return Entry.broken(where, "it has no 3-D coordinates")
    mol.UpdatePropertyCache(strict=False)
    remark = None
    bonded = mol.GetNumBonds() or mol.GetNumAtoms() == 1  # without any bonds they imply nothing, as of invalid samples
    if bonded and mol.GetNumAtoms(onlyExplicit=False) > mol.GetNumAtoms():
        remark = "lack hydrogens that their bonds imply, and are taken without"
    elif Chem.GetFormalCharge(mol):
        remark = CHARGED
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64)
    return Entry(where, numbers, np.array(mol.GetConformer().GetPositions()), remark=remark)


def _molecules_in(text: str) -> int:
    """How many an entry of an SDF holds, but for those in values of its properties, which end with an empty line."""
    count, in_value = 0, False
    for line in text.splitlines():
        if count and line.startswith(BEGIN_OF_PROPERTIES):
            in_value = True
        elif not line.strip():
            in_value = False
        count += not in_value and line.startswith(END_OF_MOLECULE)
    return count


def read_xyz(path: Path) -> Iterator[Entry]:
    """Frames of an extended or plain XYZ file; after a broken one the next line that is a number begins the next."""
    with path.open(encoding=TEXT, errors="replace") as file:
        lines = _Lines(file)
        number = 0
        while (count := lines.next_line()) is not None:
            if not count.strip():
                continue
            number += 1
            where = f"{path.name} entry {number} (line {lines.number})"
            if not count.strip().isdecimal():
                lines.skip_to_a_number()
                yield Entry.broken(where, "it does not begin with a number of atoms")
                continue
            frame = lines.take(int(count) + 1)
            entry = _from_frame(where, int(count), frame)
            if entry.reason is not None:  # its count may be wrong
                lines.give_back(frame)
                lines.skip_to_a_number(beyond=1)
            yield entry


class _Lines:
    """Lines of a file, of which some can be given back.

    Attributes:
        number: of the line that was last read, from 1.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._again = file, deque[str]()
        self.number = 0

    def next_line(self) -> str | None:
        """The next line; None at the end."""
        line = self._again.popleft() if self._again else next(self._file, None)
        self.number += line is not None
        return line

    def take(self, count: int) -> list[str]:
        """So many lines, or those that there are."""
        found: list[str] = []
        while len(found) < count and (line := self.next_line()) is not None:
            found.append(line)
        return found

    def give_back(self, lines: list[str]) -> None:
        """The next lines are these."""
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)

    def skip_to_a_number(self, beyond: int = 0) -> None:
        """Skip so many lines, and all that are no whole number."""
        self.take(beyond)
        while (line := self.next_line()) is not None:
            if line.strip().isdecimal():
                self.give_back([line])
                return


def _from_frame(where: str, count: int, lines: list[str]) -> Entry:
    """One frame, without its first line."""
    if len(lines) < count + 1:
        return Entry.broken(where, f"the file ends within its {count} atoms")
    try:
        atoms = ase.io.read(io.StringIO(f"{count}\n{''.join(lines)}"), index=0, format="extxyz")
    except KeyError as error:  # of its table of symbols, which it looks up as `Xx`
        return Entry.broken(where, f"{error} is not the symbol of an element that ASE knows")
    except NO_FRAME as error:
        return Entry.broken(where, f"ASE cannot read it ({first_line(error)})")
    assert isinstance(atoms, Atoms)
    if atoms.pbc.any() and not atoms.pbc.all():
        return Entry.broken(where, f"it is periodic in {atoms.pbc.sum()} of 3 directions")
    cell = np.array(atoms.cell) if atoms.pbc.all() else None
    charges = [value for name in CHARGES if isinstance(value := atoms.info.get(name), int | float | np.number)]
    remark = CHARGED if any(charges) else None
    return Entry(where, atoms.numbers.astype(np.int64), atoms.positions, cell=cell, remark=remark)


def _npz(path: Path) -> Iterator[Entry]:
    """Rows of padded arrays."""
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise UserError(
                    f"data={path} holds one array, and a .npz file holds {' and '.join(KEYS)}; conformers of "
                    "GEOM-Drugs have the ending .npy"
                )
            if missing := [key for key in KEYS if key not in held]:
                raise UserError(
                    f"data={path} lacks {' and '.join(missing)}: give numbers (M, N), 0 where padded, and positions"
                    f" (M, N, 3) in Å; it holds {', '.join(held) or 'nothing'}"
                )
            numbers, positions = held["numbers"], held["positions"]
    except NO_ARRAY as error:
        raise _unreadable(path, error) from error
    whole = np.issubdtype(numbers.dtype, np.integer) and np.issubdtype(positions.dtype, np.floating)
    if numbers.ndim != 2 or positions.shape != (*numbers.shape, 3) or not whole:
        raise UserError(
            f"data={path}: numbers {numbers.dtype} {numbers.shape} and positions {positions.dtype} {positions.shape} "
            "do not fit: give integers (M, N), 0 where padded, and floating numbers (M, N, 3) in Å"
        )
    for row, (of_atoms, coordinates) in enumerate(zip(numbers, positions, strict=True), start=1):
        real = of_atoms != 0
        yield _from_arrays(f"{path.name} entry {row}", of_atoms[real], coordinates[real])


def _geom(path: Path) -> Iterator[Entry]:
    """Conformers of GEOM-Drugs' array, which stays on disk."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except NO_ARRAY as error:
        raise _unreadable(path, error) from error
    if isinstance(rows, np.lib.npyio.NpzFile):
        with rows:
            raise UserError(f"data={path} holds several arrays ({', '.join(rows)}): give it the ending .npz")
    if rows.ndim != 2 or rows.shape[1] != len(ROW) or not np.issubdtype(rows.dtype, np.floating) or not len(rows):
        raise UserError(
            f"data={path} holds {rows.dtype} {rows.shape}: give GEOM-Drugs' conformers, floating numbers (rows, 5) with"
            f" the columns {', '.join(ROW)}"
        )
    conformers = np.array(rows[:, 0])
    starts = np.flatnonzero(np.diff(conformers, prepend=np.nan) != 0)
    names, counts = np.unique(conformers[starts], return_counts=True)
    if (counts > 1).any():
        raise UserError(
            f"data={path}: the rows of conformer {names[counts > 1][0]:g} do not stand together: sort the rows by the"
            " column conformer, whose numbers differ from one conformer to the next"
        )
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        part = np.array(rows[start:end], dtype=np.float64)
        where = f"{path.name} conformer {part[0, 0]:g} (row {start})"
        if are_elements(part[:, 1]):
            yield _from_arrays(where, part[:, 1].astype(np.int64), part[:, 2:])
        else:
            yield Entry.broken(where, "an atomic number is none of an element")


def are_elements(numbers: NDArray[Any]) -> bool:
    """Whether all of one or more numbers are atomic numbers."""
    return bool(numbers.min() >= 1 and numbers.max() <= HEAVIEST and (numbers == np.rint(numbers)).all())


def _from_arrays(where: str, numbers: NDArray[np.integer], positions: NDArray[np.floating]) -> Entry:
    """A molecule out of arrays without padding."""
    return Entry(where, numbers.astype(np.int64), positions.astype(np.float64))


def _unreadable(path: Path, error: BaseException) -> UserError:
    """What to say of an array file that NumPy cannot read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"data={path}: no such file")
    if "allow_pickle" in str(error) or "object" in str(error).lower():
        return UserError(f"data={path} holds Python objects, which are not loaded, since that could run code from it")
    return UserError(f"data={path} cannot be read ({first_line(error)}): is it truncated? copy it again")


READERS: dict[str, Callable[[Path], Iterable[Entry]]] = {
    ".sdf": read_sdf,
    ".mol": read_sdf,
    ".extxyz": read_xyz,
    ".xyz": read_xyz,
    ".npz": _npz,
    ".npy": _geom,
}
"""Who reads a file, by its ending."""

IN_FOLDERS = tuple(ending for ending in READERS if ending != ".npy")
"""Endings that a folder is searched for: beside GEOM's conformers lie other arrays, with counts of atoms."""
