"""Crystals as files that other programs read: CIF and extended XYZ, with an id and verdicts for each."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms

from atomrl.core.records import Structures
from atomrl.structures.crystals import MAX_NUMBER, check_cells, to_pymatgen
from atomrl.structures.molecules import split
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.io.cif import CifWriter

UNWRITABLE = {"nan", "empty", "element"}
"""Reasons of `check_cells` for which there is no CIF."""
MIN_VOLUME = 1e-3
"""Å³. A flatter cell has no fractional coordinates to speak of."""


@dataclass(frozen=True)
class AnnotatedCrystals:
    """Samples with what is known about each.

    Attributes:
        structures: B crystals.
        ids: name of each, without spaces.
        verdicts: of each, {name: value}, e.g. `CrystalVerdicts.rows()`.

    Raises:
        UserError: lists of different lengths, structures without a cell, or an id with a space.
    """

    structures: Structures
    ids: Sequence[str]
    verdicts: Sequence[Mapping[str, str | float | bool]]

    def __post_init__(self) -> None:
        counts = [len(self.structures), len(self.ids), len(self.verdicts)]
        if len(set(counts)) > 1 or self.structures.cell is None:
            raise UserError(f"cannot export crystals, ids, verdicts of lengths {counts}: give one of each, with cells")
        spaced = [name for name in self.ids if not name or name.split() != [name]]
        if spaced:
            raise UserError(f"{spaced[0]!r} cannot name a crystal in a CIF: give ids without spaces")


def write_cif(path: Path, samples: AnnotatedCrystals) -> int:
    """Write crystals as one CIF with a block for each, `data_<id>`, whole or not at all.

    Verdicts are items `_atomrl_<name>`. Cells are written as they are, in P1. A crystal that has no CIF (not finite, no
    atoms, no volume, a number that is no element) is left out; `write_extxyz` has it. pymatgen reads all blocks, but
    warns of formulas, since it compares each with that of the first block.

    Returns:
        Number of crystals written.
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
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "No Pauling electronegativity"
            )  # of noble gases: formulas are sorted by it
            (block,) = CifWriter(crystal).cif_file.data.values()
        block.header = samples.ids[row]
        block.data |= {f"_atomrl_{name}": str(value) for name, value in samples.verdicts[row].items()}
        blocks.append(str(block))
    write_whole(path, "\n\n".join(blocks) + "\n")
    return len(rows)


def write_extxyz(path: Path, samples: AnnotatedCrystals) -> None:
    """Write all samples, broken ones too, whole or not at all; verdicts and `sample_id` are in each one's `info`.

    A number that is no element becomes X.
    """
    assert samples.structures.cell is not None
    cells = samples.structures.cell.detach().cpu().double().numpy()
    images = []
    for geometry, cell, name, verdict in zip(
        split(samples.structures), cells, samples.ids, samples.verdicts, strict=True
    ):
        numbers = np.where((geometry.numbers > 0) & (geometry.numbers <= MAX_NUMBER), geometry.numbers, 0)
        images.append(Atoms(numbers, geometry.positions, cell=cell, pbc=True, info={"sample_id": name, **verdict}))
    buffer = io.StringIO()
    ase.io.write(buffer, images, format="extxyz")
    write_whole(path, buffer.getvalue())
