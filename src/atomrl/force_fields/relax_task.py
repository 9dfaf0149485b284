"""Relaxation of crystals by CHGNet in worker processes."""

from __future__ import annotations

from typing import NamedTuple

from atomrl.force_fields.chgnet import CHGNetCalculator, CHGNetForceField
from atomrl.force_fields.relax import relax
from atomrl.structures.cells import Crystal, to_arrays
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core import Lattice, Structure


class Relaxed(NamedTuple):
    """What a worker sends back.

    Attributes:
        crystal: the last geometry.
        reason: why it is not a relaxed one, see `relax.Relaxation`, or None; `element`: one that CHGNet does not know.
    """

    crystal: Crystal
    reason: str | None


def relax_crystal(item: Crystal, fmax: float, max_steps: int, max_seconds: float) -> Relaxed:
    """Relax positions and cell; arguments as in `relax.relax`. Task of a worker."""
    if not CHGNetForceField.elements.issuperset(item.numbers.tolist()):
        return Relaxed(item, "element")
    structure = Structure(Lattice(item.lattice), item.numbers.tolist(), item.frac_coords)
    relaxation = relax(structure, CHGNetCalculator(), fmax, max_steps, max_seconds=max_seconds)
    return Relaxed(to_arrays(relaxation.structure), relaxation.reason)
