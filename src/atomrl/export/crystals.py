"""Crystals as files that other programs read: CIF and extended XYZ, with an id and verdicts for each."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from atomrl.core.records import Structures
from atomrl.export.exporter import Written
from atomrl.export.extxyz import readable_info, text_of_images
from atomrl.structures.crystals import MAX_NUMBER, check_cells, to_pymatgen
from atomrl.structures.molecules import split
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole
from atomrl.util.optional_imports import extra

with extra("crystals"):
    import gemmi
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

UNWRITABLE = {"nan", "empty", "element"}
"""Reasons of `check_cells` for which there is no CIF."""
MIN_VOLUME = 1e-3
"""Å³. A flatter cell has no fractional coordinates to speak of."""
MIN_THICKNESS = 0.01
"""Å. pymatgen reads no thinner cell."""
SAME_PLACE = 1.001e-3
"""Of a cell's edges. Of atoms that are nearer ASE reads only one, and pymatgen, nearer than 1e-4, no structure at all,
so that its list lacks one."""
LONGEST_ID = 74
"""Characters of a block's name that pymatgen reads."""


@dataclass(frozen=True)
class AnnotatedCrystals:
    """Samples with what is known about each.

    Attributes:
        structures: B crystals.
        ids: name of each, no two alike, without spaces, in at most `LONGEST_ID` characters of ASCII.
        verdicts: of each, {name: value}, e.g. `CrystalVerdicts.rows()`.

    Raises:
        UserError: lists of different lengths, structures without a cell, or ids that cannot name the blocks of a CIF.
    """

    structures: Structures
    ids: Sequence[str]
    verdicts: Sequence[Mapping[str, str | float | bool]]

    def __post_init__(self) -> None:
        counts = [len(self.structures), len(self.ids), len(self.verdicts)]
        if len(set(counts)) > 1 or self.structures.cell is None:
            raise UserError(f"cannot export crystals, ids, verdicts of lengths {counts}: give one of each, with cells")
        odd = [name for name in self.ids if name.split() != [name] or not name.isascii() or len(name) > LONGEST_ID]
        if odd:
            raise UserError(
                f"{odd[0]!r} cannot name a crystal in a CIF: give ids without spaces, at most {LONGEST_ID} characters"
            )
        if len({name.lower() for name in self.ids}) < len(self.ids):
            raise UserError("two crystals have the same id, which cannot stand in one CIF: give ids that differ")


def write_cif(path: Path, samples: AnnotatedCrystals) -> int:
    """Write what `cif_text` makes, whole or not at all.

    Returns:
        Number of crystals written.
    """
    made = cif_text(samples)
    write_whole(path, made.text)
    return made.held


def cif_text(samples: AnnotatedCrystals) -> Written:
    """Crystals as a CIF with a block for each, `data_<id>`.

    Verdicts are items `_atomrl_<name>`, texts that look like something else in quotes. Cells are written as they are,
    in P1. A crystal that has no CIF (not finite, no atoms, no volume, a number that is no element), or none that is
    read back whole (two atoms at one place), is left out; `write_extxyz` has it. pymatgen reads all blocks, but warns
    of formulas, since it compares each with that of the first block.
    """
    assert samples.structures.cell is not None
    volumes = torch.linalg.det(samples.structures.cell.detach().double()).abs()
    reasons = check_cells(samples.structures)
    rows = [
        row
        for row, (reason, volume) in enumerate(zip(reasons, volumes.tolist(), strict=True))
        if reason not in UNWRITABLE and volume >= MIN_VOLUME
    ]
    blocks = []
    for row, crystal in zip(rows, to_pymatgen(samples.structures[torch.tensor(rows, dtype=torch.int64)]), strict=True):
        if not _read_back_whole(crystal):
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "No Pauling electronegativity"
            )  # of noble gases: formulas are sorted by it
            (block,) = CifWriter(crystal).cif_file.data.values()
        block.header = samples.ids[row]
        blocks.append("\n".join([str(block), *_items(samples.verdicts[row])]) + "\n\n")
    return Written("".join(blocks), len(blocks))


def _items(verdicts: Mapping[str, str | float | bool]) -> list[str]:
    """Verdicts as items of a block.

    A name, such as that of a user's property, may hold blanks or what is not ASCII, which becomes `_` here; of names
    that are the same to CIF, whatever the case, the later ones get a number.
    """
    items, before = [], Counter[str]()
    for name, value in verdicts.items():
        tag = re.sub(r"[^!-~]+", "_", name)
        before[tag.lower()] += 1
        number = f"_{before[tag.lower()]}" if before[tag.lower()] > 1 else ""
        items.append(f"_atomrl_{tag}{number} {_cif_value(value)}")
    return items


def _read_back_whole(crystal: Structure) -> bool:
    """Whether other programs read all atoms of a crystal's CIF."""
    apart = crystal.frac_coords[:, None] - crystal.frac_coords
    apart = np.abs(apart - apart.round()).max(-1)
    np.fill_diagonal(apart, 1.0)
    areas = np.linalg.norm(np.cross(crystal.lattice.matrix, np.roll(crystal.lattice.matrix, 1, axis=0)), axis=1)
    return bool(apart.min() > SAME_PLACE and crystal.volume > MIN_THICKNESS * areas.max())


def _cif_value(value: str | float | bool) -> str:
    """A value as CIF writes it, between blanks or line breaks; a text that looks like something else is quoted.

    A text of several lines stands between semicolons at the beginning of lines. CIF 1.1 has no escape: a backslash is
    one, and a line of the text that begins with a semicolon goes on the line before it.
    """
    if not isinstance(value, str):
        return str(value)
    if len(lines := value.splitlines()) > 1 or (lines and lines[0] != value):
        return "\n;" + re.sub(r"\n\s*;", " ;", "\n".join(lines)) + "\n;"
    quoted = str(gemmi.cif.quote(value))
    if quoted.startswith(";"):
        return "\n" + quoted
    bare = quoted == value
    return f"'{value}'" if bare and (_looks_otherwise(value) or not value.isascii()) else quoted


def _looks_otherwise(text: str) -> bool:
    """Whether a text reads as a number, perhaps with its uncertainty (`5(2)`), or as a truth value."""
    return text in {"True", "False"} or re.fullmatch(r"[A-Za-z][\w()-]*", text) is None or _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_extxyz(path: Path, samples: AnnotatedCrystals) -> None:
    """Write what `extxyz_text` makes, whole or not at all."""
    write_whole(path, extxyz_text(samples).text)


def extxyz_text(samples: AnnotatedCrystals) -> Written:
    """All samples, broken ones too; verdicts and `sample_id` are in each one's `info`.

    A number that is no element becomes X.
    """
    assert samples.structures.cell is not None
    cells = samples.structures.cell.detach().cpu().double().numpy()
    images = []
    for geometry, cell, name, verdict in zip(
        split(samples.structures), cells, samples.ids, samples.verdicts, strict=True
    ):
        numbers = np.where((geometry.numbers > 0) & (geometry.numbers <= MAX_NUMBER), geometry.numbers, 0)
        info = readable_info({"sample_id": name, **verdict})
        images.append(Atoms(numbers, geometry.positions, cell=cell, pbc=True, info=info))
    return Written(text_of_images(images), len(images))
