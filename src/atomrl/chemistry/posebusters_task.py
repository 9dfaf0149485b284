"""What a worker process does for PoseBusters: no torch in here.

Source: Buttenschoen, Morris, Deane 2024, doi 10.1039/D3SC04185A. The checks are those of its configuration `mol_fast`:
of the molecule alone, without the comparison of energies.
"""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from atomrl.chemistry.perceived_task import bonded
from atomrl.chemistry.rdkit_task import BondedMolecule, build, place
from atomrl.structures.molecules import Geometry
from atomrl.util.optional_imports import extra
from atomrl.workers.failure import Failure

with extra("eval"):
    from posebusters import PoseBusters

CONFIGURATION = "mol_fast"
LOADED = "mol_pred_loaded"
"""A check of files, which there are none of."""


def bust(item: tuple[BondedMolecule, NDArray[np.float64]]) -> dict[str, bool]:
    """Each check's verdict on a molecule: its bonds are given, hydrogens that a valence lacks are implied.

    PoseBusters has no lengths, angles, clashes or flatness of a molecule that RDKit cannot sanitise, and says NaN: such
    a check is not passed.

    Args:
        item: the molecule and its positions, Å, (N, 3).
    """
    molecule, positions = item
    mol = build(molecule).GetMol()
    place(mol, positions)
    return _verdicts(mol)


def bust_perceived(geometry: Geometry) -> dict[str, bool]:
    """The same of a molecule whose bonds RDKit finds, as under profile `rdkit-xyz2mol`.

    Raises:
        Failure: `nonfinite`, or as `perceived_task.bonded`.
    """
    if not np.isfinite(geometry.positions).all():
        raise Failure("nonfinite")
    with BlockLogs():
        mol = bonded(geometry)
    return _verdicts(mol)


def _verdicts(mol: Chem.Mol) -> dict[str, bool]:
    """Of a molecule in RDKit, with its positions."""
    with BlockLogs(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas
        row = _busters().bust(mol, None, None).iloc[0]
    return {str(name): bool(passed == 1) for name, passed in row.items() if name != LOADED}


@cache
def _busters() -> PoseBusters:
    return PoseBusters(config=CONFIGURATION)
