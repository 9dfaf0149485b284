"""Many crystals relaxed at once: the steps of ASE for each, batches that stay full, and what ends a relaxation."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.filters import UnitCellFilter
from ase.optimize import FIRE
from crystal_samples import PEROVSKITE, ROCK_SALT, SILICON, TRICLINIC, rattled
from pymatgen.core import Lattice, Structure

from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.chgnet import CHGNetCalculator, CHGNetForceField
from atomrl.force_fields.crystals import CrystalEvaluation, CrystalForceField
from atomrl.force_fields.relax_batch import relax_batch
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import from_pymatgen, to_crystals
from atomrl.util.errors import UserError

STRETCHED = Structure(Lattice.cubic(5.9), ROCK_SALT.species, ROCK_SALT.frac_coords).get_primitive_structure()


class Springs(CrystalForceField):
    """Atoms on springs to the place (1, 1, 1) Å, a cell that pulls itself together, and what it was asked."""

    elements, model_id, correction = frozenset(range(1, 95)), "springs", "none"

    def __init__(self, pull: float = 0.0):
        super().__init__(self)
        self.asked: list[int] = []
        self.pull = pull

    def compute(self, crystals: list[Crystal]) -> list[CrystalEvaluation]:
        self.asked.append(len(crystals))
        found = []
        for crystal in crystals:
            offsets = crystal.frac_coords @ crystal.lattice - 1.0
            stress = self.pull * np.eye(3)
            found.append(CrystalEvaluation(float((offsets**2).sum() / 2), -offsets, None, stress=stress))
        return found

    def close(self) -> None:
        """Nothing to give back."""


def single(distance: float) -> Structure:
    """One atom this far from (1, 1, 1) along x, in a cube."""
    return Structure(Lattice.cubic(3.0), ["Si"], [[1 + distance, 1, 1]], coords_are_cartesian=True)


@pytest.mark.parametrize("structure", [STRETCHED, rattled(PEROVSKITE), TRICLINIC], ids=["stretched", "rattled", "skew"])
def test_each_crystal_takes_the_steps_of_ase(structure: Structure) -> None:
    """Fifteen steps of FIRE on positions and cell, in company and alone by ASE, end in the same place."""
    company = from_pymatgen([SILICON, structure, rattled(ROCK_SALT)])
    found = relax_batch(CHGNetForceField(gradients=True), company, 15, fmax=1e-4)
    atoms: Any = Atoms(
        structure.atomic_numbers, scaled_positions=structure.frac_coords, cell=structure.lattice.matrix, pbc=True
    )
    atoms.calc = CHGNetCalculator()
    FIRE(UnitCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=15)
    mine = to_crystals(found.structures)[1]
    np.testing.assert_allclose(mine.lattice, atoms.cell.array, atol=2e-3)
    np.testing.assert_allclose(mine.frac_coords @ mine.lattice, atoms.positions, atol=2e-3)
    assert found.energies[1] == pytest.approx(atoms.get_potential_energy(), abs=2e-3)
    assert found.steps[1] == 15
    assert found.reasons == (None, None, None)


def test_rock_salt_relaxes_to_its_lattice_constant() -> None:
    found = relax_batch(CHGNetForceField(gradients=True), from_pymatgen([STRETCHED, TRICLINIC]), 200)
    assert found.converged[0]
    lattice = to_crystals(found.structures)[0].lattice
    assert np.linalg.norm(lattice, axis=1).mean() * np.sqrt(2) == pytest.approx(5.64, rel=0.03)
    assert found.energies[0] / 2 == pytest.approx(-3.667, abs=0.01)


def test_one_call_serves_all_that_still_move() -> None:
    field = Springs()
    found = relax_batch(field, from_pymatgen([single(0.0), single(0.3), single(0.01)]), 60, fmax=0.02)
    assert found.converged.all()
    assert found.steps[0] == found.steps[2] == 0
    assert found.steps[1] > 3
    assert field.asked == [3] + [1] * int(found.steps[1])
    np.testing.assert_allclose(found.structures.positions[1], 1.0, atol=0.02)


def test_forces_of_single_precision_relax_too() -> None:
    """As many calculators of ASE give them."""

    class Single(Springs):
        def compute(self, crystals: list[Crystal]) -> list[CrystalEvaluation]:
            found = super().compute(crystals)
            return [replace(result, forces=result.forces.astype(np.float32)) for result in found]

    found = relax_batch(Single(), from_pymatgen([single(0.3)]), 60, fmax=0.02)
    assert found.converged.all()


def test_no_step_is_an_evaluation() -> None:
    batch = from_pymatgen([single(0.5)])
    found = relax_batch(Springs(), batch, 0)
    assert found.energies[0] == pytest.approx(0.125)
    assert not found.converged[0]
    assert torch.equal(found.structures.positions, batch.positions)


def test_a_crystal_that_collapses_or_is_broken_costs_only_itself() -> None:
    """It stops where it was last sound, with the reason; the others go on."""
    overlapping = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.0003, 0, 0]])
    found = relax_batch(Springs(pull=2.0), from_pymatgen([single(0.2), overlapping]), 200)
    assert found.reasons == ("volume", "overlap")
    assert np.isnan(found.energies).all()
    assert not found.converged.any()
    last = float(torch.linalg.det(found.structures.cell[0]))
    assert 3.0 <= last < 27.0
    assert found.steps[0] > 1


def test_time_ends_what_still_moves() -> None:
    found = relax_batch(Springs(), from_pymatgen([single(0.0), single(0.5)]), 10_000, max_seconds=0.0)
    assert found.reasons == (None, "slow")
    assert np.isnan(found.energies[1])
    assert found.energies[0] == pytest.approx(0.0)
    done = relax_batch(Springs(), from_pymatgen([single(0.5)]), 0, max_seconds=0.0)  # has taken all its steps
    assert (done.reasons, done.converged.tolist()) == ((None,), [False])
    assert done.energies[0] == pytest.approx(0.125)


class NoStress(Springs):
    """Energies and forces alone."""

    def compute(self, crystals: list[Crystal]) -> list[Any]:
        return [Evaluation(result.energy, result.forces, None) for result in super().compute(crystals)]


class UnknownStress(Springs):
    """As a force field of the user's that leaves the field as it is, NaN."""

    def compute(self, crystals: list[Crystal]) -> list[Any]:
        found = super().compute(crystals)
        return [CrystalEvaluation(result.energy, result.forces, None) for result in found]


class LosesStress(Springs):
    """In its second evaluation it has none of the first crystal."""

    def compute(self, crystals: list[Crystal]) -> list[Any]:
        found: list[Any] = super().compute(crystals)
        if len(self.asked) == 2:
            found[0] = CrystalEvaluation(found[0].energy, found[0].forces, None)
        return found


@pytest.mark.parametrize("field", [NoStress, UnknownStress])
def test_a_force_field_without_stress_is_one_line(field: type[Springs]) -> None:
    with pytest.raises(UserError, match="a relaxation needs stresses"):
        relax_batch(field(), from_pymatgen([single(0.2)]), 3)


def test_a_stress_that_is_not_finite_is_no_minimum() -> None:
    found = relax_batch(LosesStress(), from_pymatgen([single(0.5), single(0.5)]), 50)
    assert found.reasons == ("nonfinite_result", None)
    assert found.converged.tolist() == [False, True]
    assert np.isnan(found.energies[0])


def test_no_crystal_at_all() -> None:
    found = relax_batch(Springs(), from_pymatgen([]), 5)
    assert len(found.structures) == len(found.reasons) == 0
