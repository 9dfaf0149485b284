"""Relaxation: where it ends, and what stops it."""

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.optimize import BFGS, FIRE
from crystal_samples import PEROVSKITE, ROCK_SALT
from pymatgen.core import Lattice, Structure

from atomrl.force_fields.chgnet import CHGNetCalculator
from atomrl.force_fields.relax import relax
from atomrl.force_fields.relax_task import relax_crystal
from atomrl.structures.cells import to_arrays
from atomrl.structures.crystals import CellBounds


class Collapse(Calculator):
    """Pulls the cell together, however small it is, and notes the volumes per atom that it saw."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self):
        super().__init__()
        self.seen = []

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        self.seen.append(atoms.get_volume() / len(atoms))
        self.results = {"energy": -1.0, "forces": np.zeros((len(atoms), 3)), "stress": np.array([1.0, 1, 1, 0, 0, 0])}


class Broken(Calculator):
    """Fails on every call."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms, properties, system_changes):
        raise CalculationFailed("no convergence")


def test_rock_salt_relaxes_to_its_lattice_constant():
    stretched = Structure(Lattice.cubic(5.9), ROCK_SALT.species, ROCK_SALT.frac_coords).get_primitive_structure()
    result = relax(stretched, CHGNetCalculator())
    assert result.converged
    assert result.reason is None
    assert result.steps > 0
    assert result.energy_per_atom == pytest.approx(-3.667, abs=0.01)
    conventional = result.structure.lattice.abc[0] * np.sqrt(2)
    assert conventional == pytest.approx(5.64, rel=0.03)
    assert result.structure.species == stretched.species


def test_another_optimizer_ends_in_the_same_place():
    stretched = Structure(Lattice.cubic(5.9), ROCK_SALT.species, ROCK_SALT.frac_coords).get_primitive_structure()
    fire, bfgs = (relax(stretched, CHGNetCalculator(), 0.02, optimizer=optimizer) for optimizer in (FIRE, BFGS))
    assert fire.converged
    assert bfgs.converged
    assert bfgs.steps < fire.steps
    assert bfgs.energy_per_atom == pytest.approx(fire.energy_per_atom, abs=1e-3)
    assert max(fire.fmax, bfgs.fmax) <= 0.02


def test_steps_are_bounded():
    result = relax(
        Structure(Lattice.cubic(4.3), PEROVSKITE.species, PEROVSKITE.frac_coords), CHGNetCalculator(), max_steps=2
    )
    assert (result.converged, result.steps, result.reason) == (False, 2, "unconverged")
    assert np.isfinite(result.energy_per_atom)
    assert result.fmax > 0.1


def test_time_is_bounded():
    result = relax(
        Structure(Lattice.cubic(4.3), PEROVSKITE.species, PEROVSKITE.frac_coords), CHGNetCalculator(), max_seconds=0.0
    )
    assert (result.converged, result.steps, result.reason) == (False, 0, "slow")
    assert np.isfinite(result.energy_per_atom)


def test_a_refused_cell_is_not_evaluated():
    overlapping = Structure(Lattice.cubic(4.0), ["W", "W"], [[0, 0, 0], [0.1, 0, 0]])
    result = relax(overlapping, Broken())
    assert (result.converged, result.steps, result.reason) == (False, 0, "overlap")
    assert np.isnan(result.energy_per_atom)
    assert result.structure == overlapping


def test_a_collapse_is_stopped_before_it_is_evaluated():
    calculator = Collapse()
    result = relax(ROCK_SALT, calculator, max_steps=1000, bounds=CellBounds(min_volume=15.0))
    assert (result.converged, result.reason) == (False, "volume")
    assert 0 < result.steps < 1000
    assert min(calculator.seen) >= 15.0 > result.structure.volume / len(result.structure)
    assert np.isnan(result.energy_per_atom)


def test_a_calculator_s_failure_is_a_reason():
    result = relax(ROCK_SALT, Broken())
    assert result.reason == "calculator: no convergence"
    assert not result.converged
    assert np.isnan(result.energy_per_atom)


def test_an_element_that_chgnet_does_not_know_is_a_reason():
    americium = Structure(Lattice.cubic(4.9), ["Am"] * 4, [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    item = to_arrays(americium)
    relaxed = relax_crystal(item, 0.1, 5, 60.0)
    assert relaxed.reason == "element"
    assert relaxed.crystal is item
