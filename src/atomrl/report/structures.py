"""The structures of an evaluation as text, each as it stands in its column's file, and their depictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D
from rdkit.rdBase import BlockLogs

from atomrl.data.molecule_files import END_OF_ENTRY, sdf_texts
from atomrl.data.structure_files import read_cif
from atomrl.report.evaluations import Evaluation, sample_file
from atomrl.util.errors import UserError, first_line

WIDTH, HEIGHT = 180, 130
"""Pixels of a depiction."""
DRAWN = {
    "clearBackground": False,
    "bondLineWidth": 1.4,
    "fixedBondLength": 22,
    "minFontSize": 11,
    "maxFontSize": 11,
}
"""RDKit's options of a depiction: bonds and letters of one size, on no ground of its own."""


class StructureText(NamedTuple):
    """One structure.

    Attributes:
        ending: `sdf`, `cif` or `xyz`, which is the format.
        text: of a file that holds it alone.
    """

    ending: str
    text: str


def structure_texts(evaluation: Evaluation, label: str, ids: Sequence[str]) -> dict[str, StructureText]:
    """The samples of a column by id: SDF or CIF, and extended XYZ of those that these cannot hold.

    Args:
        evaluation: whose folder it is.
        label: heading of the column.
        ids: of all its samples, in order.

    Raises:
        UserError: a file cannot be read, or is not of these samples.
    """
    found: dict[str, StructureText] = {}
    for ending, read in (("sdf", _sdf), ("cif", _cif)):
        path = sample_file(evaluation, label, ending)
        if path.is_file():
            found |= {name: StructureText(ending, text) for name, text in _readable(path, read(path))}
    path = sample_file(evaluation, label, "extxyz")
    if found.keys() >= set(ids) or not path.is_file():
        return found
    frames = [text for _, text in _readable(path, _xyz(path))]
    if len(frames) != len(ids):
        raise UserError(f"{path} holds {len(frames)} structures, the table of samples {len(ids)}: copy both again")
    return {name: StructureText("xyz", text) for name, text in zip(ids, frames, strict=True)} | found


@cache
def depiction(smiles: str) -> str | None:
    """A drawing of a molecule without its hydrogens, as SVG; None if RDKit cannot read it."""
    with BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return None
    drawer = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    rdMolDraw2D.UpdateDrawerParamsFromJSON(drawer, json.dumps(DRAWN))
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule)
    drawer.FinishDrawing()
    return str(drawer.GetDrawingText())


def _sdf(path: Path) -> Iterator[tuple[str, str]]:
    """Entries of an SDF by title."""
    with path.open(encoding="utf-8") as file:
        for text in sdf_texts(file):
            yield text.partition("\n")[0], f"{text}{END_OF_ENTRY}\n"


def _cif(path: Path) -> Iterator[tuple[str, str]]:
    """Blocks of a CIF by name."""
    for block in read_cif(path):
        yield block.text.partition("\n")[0].removeprefix("data_"), block.text


def _xyz(path: Path) -> Iterator[tuple[str, str]]:
    """Frames of an extended XYZ file, which has no names for them."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            frame = [line, *islice(file, int(line) + 1)]
            if len(frame) < int(line) + 2:
                raise ValueError("it ends within a structure")
            yield "", "".join(frame)


def _readable(path: Path, entries: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """All entries of a file.

    Raises:
        UserError: it is no such file.
    """
    try:
        return list(entries)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): copy it again") from error
