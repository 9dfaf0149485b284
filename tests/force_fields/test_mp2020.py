"""Materials Project's corrections, against the table of Wang et al. 2021 (eV per atom that is corrected)."""

import time

import numpy as np
import pytest
import torch
from crystal_samples import PEROVSKITE, ROCK_SALT, SILICON, TRICLINIC
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from atomrl.data.prototype_set import load_prototypes
from atomrl.force_fields import mp2020
from atomrl.force_fields.mp2020 import likely_oxidation_states, mp2020_correction
from atomrl.structures.cells import to_arrays
from atomrl.structures.crystals import to_crystals

OXIDE, PEROXIDE, CHLORIDE, SULFIDE = -0.687, -0.465, -0.614, -0.503
IRON_IN_OXIDES, NICKEL_IN_OXIDES = -2.256, -2.541


def salt(a, *symbols):
    return Structure(Lattice(a / 2 * (1 - np.eye(3))), symbols, [[0, 0, 0], [0.5, 0.5, 0.5]])


def pair_of_oxygen(distance):
    """A barium atom and O2 at this distance."""
    places = [[0, 0, 0], [0.5, 0.5, 0.5 - distance / 10], [0.5, 0.5, 0.5 + distance / 10]]
    return Structure(Lattice.cubic(5.0), ["Ba", "O", "O"], places)


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (SILICON, 0.0),  # elements keep their energies
        (TRICLINIC, CHLORIDE),
        (ROCK_SALT, 4 * CHLORIDE),  # of the cell, not per atom
        (PEROVSKITE, 3 * OXIDE),
        (salt(4.33, "Fe", "O"), IRON_IN_OXIDES + OXIDE),  # PBE+U
        (salt(4.17, "Ni", "O"), NICKEL_IN_OXIDES + OXIDE),
        (salt(4.8, "Fe", "S"), SULFIDE),  # sulfides are computed without U
        (salt(3.5, "Na", "Mg"), 0.0),
        (pair_of_oxygen(1.46), 2 * PEROXIDE),
        (pair_of_oxygen(2.5), 2 * OXIDE),
        (Structure(Lattice.cubic(4.0), ["Ni", "Ar", "O"], np.eye(3) / 2), NICKEL_IN_OXIDES + OXIDE),
    ],
)
def test_table(structure, expected):
    assert mp2020_correction(to_arrays(structure)) == pytest.approx(expected, abs=2e-3)


def spread_out(**amounts):
    """So many atoms of each element, far from each other."""
    symbols = [symbol for symbol, amount in amounts.items() for _ in range(amount)]
    side = int(np.ceil(len(symbols) ** (1 / 3)))
    places = np.array(list(np.ndindex(side, side, side)))[: len(symbols)] / side
    return Structure(Lattice.cubic(3.2 * side), symbols, places)


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({"Li": 14, "Cl": 4, "O": 5}, 4 * CHLORIDE + 5 * OXIDE),  # 23 atoms: chlorine is an anion beside oxygen
        ({"Li": 28, "Cl": 8, "O": 10}, 8 * CHLORIDE + 10 * OXIDE),  # two formula units
        ({"Li": 3, "Cl": 1, "O": 1}, CHLORIDE + OXIDE),  # as small formulas always were
        ({"Ca": 10, "P": 6, "O": 26, "H": 2}, 26 * OXIDE),  # neither phosphorus nor hydrogen is an anion here
        ({"Na": 20, "Mg": 13}, 0.0),  # no neutral choice
    ],
)
def test_anions_of_large_formulas(amounts, expected):
    assert mp2020_correction(to_arrays(spread_out(**amounts))) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    "formula",
    ["Li14Cl4O5", "Fe12Si7O30", "Ca10P6H2O26", "NaCl", "Fe3O4", "KCaMgFeNiMnSiO8FCl", "Li10GeP2S12", "SrTiO3", "NaMg"],
)
def test_oxidation_states_are_those_that_pymatgen_guesses(formula):
    guesses = Composition(formula).oxi_state_guesses(max_sites=-1)
    expected = guesses[0] if guesses else {}
    found = likely_oxidation_states(Composition(formula).reduced_formula)
    assert found == pytest.approx(dict(expected))


def test_a_large_formula_takes_no_time():
    """Where trying all combinations takes minutes."""
    started = time.perf_counter()
    assert likely_oxidation_states("Fe20Mn13Cr15V17Mo11O96F12S4")["O"] == -2
    assert time.perf_counter() - started < 2


def plain_correction(structure):
    """By the scheme itself, which guesses the oxidation states."""
    values = mp2020._hubbard_values(structure)
    parameters = {"run_type": "GGA+U" if values else "GGA", "hubbards": values, "software": "none"}
    entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
    return sum(adjustment.value for adjustment in mp2020._scheme().get_adjustments(entry))


@pytest.mark.filterwarnings("ignore")
def test_small_formulas_are_corrected_as_pymatgen_does():
    draw = np.random.default_rng(0)
    rows = torch.from_numpy(draw.choice(4376, 150, replace=False))
    elements = np.array(["H", "Li", "Si", "S", "O", "F", "Cl", "N", "Se", "Fe", "Mn", "Ti", "Cu", "La"])
    mixed = [
        spread_out(**{str(symbol): int(draw.integers(1, 5)) for symbol in draw.choice(elements, 4, replace=False)})
        for _ in range(150)
    ]
    known = [
        Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords)
        for crystal in to_crystals(load_prototypes().structures(rows))
    ]
    for structure in [*known, *mixed]:
        expected = plain_correction(structure)
        assert mp2020_correction(to_arrays(structure)) == pytest.approx(expected, abs=1e-9), structure.formula


def test_the_scheme_does_not_try_all_combinations(monkeypatch):
    """Of ten elements' states there are thousands."""
    guess = Composition.oxi_state_guesses

    def small(composition, *args, **options):
        assert len(composition) < 3
        return guess(composition, *args, **options)

    monkeypatch.setattr(Composition, "oxi_state_guesses", small)
    crystal = to_arrays(spread_out(Fe=1, Mn=1, Cr=1, V=1, Mo=1, Co=1, Cu=1, Ni=1, W=1, Ti=1, O=9))
    assert mp2020_correction(crystal) < 9 * OXIDE
