"""What a worker process does with one molecule under profile `rdkit-xyz2mol`: RDKit finds its bonds. No torch in here.

RDKit's `rdDetermineBonds` follows xyz2mol, which follows Kim and Kim 2015 (doi 10.1002/bkcs.10334): atoms are joined by
their distances, and bond orders and formal charges are chosen such that valences and the total charge, 0, come out.
That it succeeds does not make a molecule: radicals are refused here, and an atom is stable only with a valence below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rdkit import Chem
from rdkit.Chem import rdDetermineBonds
from rdkit.rdBase import BlockLogs

from atomrl.chemistry.rdkit_task import BondedMolecule, build, count_rings, largest, place
from atomrl.structures.molecules import Geometry
from atomrl.workers.failure import Failure

VALENCES: dict[tuple[str, int], tuple[int, ...]] = {
    ("H", 0): (1,),
    ("B", 0): (3,),
    ("B", -1): (4,),
    ("C", 0): (4,),
    ("C", -1): (3,),
    ("N", 0): (3,),
    ("N", 1): (4,),
    ("N", -1): (2,),
    ("O", 0): (2,),
    ("O", 1): (3,),
    ("O", -1): (1,),
    ("F", 0): (1,),
    ("Si", 0): (4,),
    ("P", 0): (3, 5),
    ("P", 1): (4,),
    ("S", 0): (2, 4, 6),
    ("S", 1): (3,),
    ("S", -1): (1,),
    ("Cl", 0): (1,),
    ("As", 0): (3, 5),
    ("Se", 0): (2, 4, 6),
    ("Br", 0): (1,),
    ("I", 0): (1,),
    ("Bi", 0): (3, 5),
}
"""{(element, formal charge): allowed sums of bond orders}. A charged atom has that of its isoelectronic neighbour, as
in nitro groups, azides, isocyanides, carbon monoxide, sulfoxides. RDKit finds no bond orders for aluminium, mercury and
halogens of several bonds, so that they have no entry."""


class Perceived(NamedTuple):
    """A valid molecule, as `rdkit_task.Named` has it, and its atoms of allowed valence."""

    smiles: str
    fragments: int
    rings: int
    stable_atoms: int


def perceive(geometry: Geometry) -> Perceived:
    """Find the bonds of a neutral molecule and name it.

    Raises:
        Failure: it is not valid; the reason is one of `bonded`, or `radical`.
    """
    with BlockLogs():
        mol = bonded(geometry)
        with _failures():
            fragments = Chem.GetMolFrags(mol, asMols=True)
        kinds = Counter(
            (atom.GetSymbol(), atom.GetFormalCharge(), atom.GetTotalValence(), atom.GetNumRadicalElectrons())
            for atom in mol.GetAtoms()
        )
        if any(radicals for *_, radicals in kinds):
            raise Failure("radical")
        stable = sum(
            count
            for (symbol, charge, valence, _), count in kinds.items()
            if valence in VALENCES.get((symbol, charge), ())
        )
        return Perceived(largest(fragments), len(fragments), count_rings(mol), stable)


def bonded(geometry: Geometry) -> Chem.Mol:
    """A neutral molecule with the bonds that RDKit finds, sanitised, at its place.

    Raises:
        Failure: `no_atoms`, `bonds` (no bond orders add up to a neutral molecule), `valence` or `sanitize`.
    """
    if not len(geometry.numbers):
        raise Failure("no_atoms")
    mol = build(BondedMolecule(geometry.numbers.tolist(), []))
    place(mol, geometry.positions)
    with _failures():
        rdDetermineBonds.DetermineBonds(mol, charge=0, embedChiral=False)
        Chem.SanitizeMol(mol)
    return mol.GetMol()


@contextmanager
def _failures() -> Iterator[None]:
    """Exceptions of RDKit as `Failure`."""
    try:
        yield
    except Chem.AtomValenceException as error:
        raise Failure("valence") from error
    except Chem.MolSanitizeException as error:
        raise Failure("sanitize") from error
    except (ValueError, RuntimeError) as error:  # as its binding gives RDKit's own
        raise Failure("bonds") from error
