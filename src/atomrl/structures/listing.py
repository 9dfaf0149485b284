"""Samples one by one, as a reward component of the user's gets them: which objects, and what is said of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from atomrl.core.records import Structures
from atomrl.structures.molecules import split


@dataclass(frozen=True)
class Listing:
    """How the samples of a domain are handed to a component.

    Attributes:
        listed: the samples as objects, in order.
        check: for each a reason not to look at it, or None.
        content: of one object, all that a component must leave as it is.
        formula: of one object, for messages.
    """

    listed: Callable[[Structures], Sequence[Any]]
    check: Callable[[Structures], Sequence[str | None]]
    content: Callable[[Any], tuple[bytes, ...]]
    formula: Callable[[Any], str]


def to_atoms(structures: Structures) -> list[Atoms]:
    """Molecules as `ase.Atoms`, Å."""
    return [Atoms(numbers=molecule.numbers, positions=molecule.positions) for molecule in split(structures)]


def check_coordinates(structures: Structures) -> list[str | None]:
    """`no_atoms`, `nonfinite` for a molecule with a coordinate that is NaN or infinite, else None."""
    finite = (structures.positions.isfinite().all(2) | ~structures.mask).all(1).tolist()
    return [
        "no_atoms" if not count else None if good else "nonfinite"
        for count, good in zip(structures.sizes.tolist(), finite, strict=True)
    ]


MOLECULES = Listing(
    listed=to_atoms,
    check=check_coordinates,
    content=lambda atoms: (atoms.numbers.tobytes(), atoms.positions.tobytes()),
    formula=lambda atoms: str(atoms.get_chemical_formula()),
)
