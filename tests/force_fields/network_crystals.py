"""Crystals of H, C, N and O, what a small random network knows, and what all networks of crystals are asked."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomrl.core.records import Structures
from atomrl.force_fields.network_crystals import NetworkCrystals
from atomrl.structures.crystals import from_pymatgen
from atomrl.testing import check_crystal_force_field


def crystals() -> Structures:
    """Two, of different sizes."""
    lattice = Lattice.from_parameters(3.3, 3.6, 4.1, 80, 95, 103)
    return from_pymatgen(
        [
            Structure(lattice, ["C", "O"], [[0.02, 0, 0], [0.5, 0.45, 0.53]]),
            Structure(
                Lattice.cubic(3.9), ["N", "H", "O", "O"], [[0, 0, 0.02], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
            ),
        ]
    )


def check(field: NetworkCrystals, energies_alone: NetworkCrystals, step: float) -> None:
    """Forces, stress, order, orientation, company, supercells; without gradients the same energies; bad cells."""
    batch = crystals()
    check_crystal_force_field(field, batch, step=step)
    assert field.model_id == energies_alone.model_id
    for full, alone in zip(field.evaluate(batch), energies_alone.evaluate(batch), strict=True):
        assert alone.energy == pytest.approx(full.energy, abs=1e-4)
        assert np.isnan(alone.forces).all()
        assert np.isnan(alone.stress).all()
    batch.positions[1] *= 0.1
    found = field.evaluate(batch)
    assert [result.reason for result in found] == [None, "overlap"]
