"""The task of workers that get all their molecules at once. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atomrl.force_fields.gfn2 import singlepoint


def singlepoints(molecules: Sequence[Any], max_iterations: int) -> list[float]:
    """Energies of molecules in eV, see `gfn2.singlepoint`."""
    return [singlepoint(molecule, max_iterations)[0] for molecule in molecules]
