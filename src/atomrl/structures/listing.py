"""Samples one by one, as a reward component of the user's gets them: which objects, and what is said of one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from atomrl.core.records import Structures
from atomrl.structures.molecules import split

ATOMS, MOL, STRUCTURES = "Atoms", "Mol", "Structures"
FORMS = frozenset({ATOMS, MOL, STRUCTURES})
"""How a function of the user's may ask for samples: `list[ase.Atoms]`, `list[rdkit.Chem.Mol]`, `records.Structures`."""


@dataclass(frozen=True)
class Listing:
    """How the samples of a domain are handed to a component.

    Attributes:
        listed: the samples as objects, in order.
        check: for each a reason not to look at it, or None.
        content: of one object, all that a component must leave as it is.
        formula: of one object, for messages.
        noun: of the samples, for messages.
        forms: the names in `FORMS` that a component may ask for; another one gets the listed objects.
    """

    listed: Callable[[Structures], Sequence[Any]]
    check: Callable[[Structures], Sequence[str | None]]
    content: Callable[[Any], tuple[bytes, ...]]
    formula: Callable[[Any], str]
    noun: str
    forms: frozenset[str]


def form_of(function: Callable[..., Any]) -> str | None:
    """The name in `FORMS` that the annotation of a function's first parameter ends with; None: it names none.

    The name alone counts, so that it need not be imported where the annotation is never evaluated.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a function in C without a signature
        return None
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return None
    words = re.findall(r"\w+", inspect.formatannotation(parameters[0].annotation))
    return words[-1] if words and words[-1] in FORMS else None


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
    noun="molecules",
    forms=FORMS,
)
