"""Molecules side by side in one picture: as they were sampled, seen across their two longest axes, by RDKit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import Draw
from rdkit.Chem.Draw import rdMolDraw2D

from atomrl.chemistry.rdkit import bonded_molecules
from atomrl.chemistry.rdkit_task import BondedMolecule, build, place
from atomrl.core.records import Structures
from atomrl.export.exporter import Picture
from atomrl.structures.molecules import MAX_EXTENT, split

ACROSS = 4
"""Molecules in a row."""
PANEL = (260, 240)
"""Pixels of one, wide and high."""


def draw(structures: Structures, captions: Sequence[str]) -> Picture:
    """All atoms and the bonds of the distance table, valid or not.

    The geometry is that of the sample, not one that is laid out for its bonds, so that a bad one shows. A molecule
    that is not finite, or larger than `MAX_EXTENT`, leaves its place empty.

    Args:
        structures: B molecules.
        captions: of each.
    """
    pairs = zip(bonded_molecules(structures), split(structures), strict=True)
    drawn = [_flat(bonded, geometry.positions) for bonded, geometry in pairs]
    options = rdMolDraw2D.MolDrawOptions()
    options.prepareMolsBeforeDrawing = False  # type: ignore[assignment]  # as they are: nothing is sanitised
    options.legendFontSize = 14  # type: ignore[assignment]
    image = Draw.MolsToGridImage(  # type: ignore[no-untyped-call]
        drawn, molsPerRow=ACROSS, subImgSize=PANEL, legends=list(captions), drawOptions=options, returnPNG=False
    )
    return np.asarray(image.convert("RGB"))


def _flat(bonded: BondedMolecule, positions: NDArray[np.float64]) -> Chem.Mol:
    """A molecule in the plane of its two longest axes; an empty one where that cannot be."""
    if not len(positions) or not np.isfinite(positions).all() or np.ptp(positions, axis=0).max() > MAX_EXTENT:
        return _empty()
    centred = positions - positions.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=True)
    seen = centred @ axes.T
    mol = build(bonded)
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(True)  # no hydrogen that was not sampled
    mol.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(mol)
    place(mol, seen * (1.0, 1.0, 0.0))
    return mol


def _empty() -> Chem.Mol:
    """Nothing to see; RDKit writes no caption below a molecule without atoms."""
    mol = Chem.RWMol()
    mol.AddAtom(Chem.Atom(0))
    mol.GetAtomWithIdx(0).SetProp("_displayLabel", " ")
    mol.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(mol)
    place(mol, np.zeros((1, 3)))
    return mol
