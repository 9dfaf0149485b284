"""CIF text: what its formula and its units say of the cell."""

import pytest
from cif_texts import FACE_CENTRED, NA_CL, cif, formula, reason
from pymatgen.core import Lattice, Structure

from atomrl.structures.cif import multiple, parse_cif


@pytest.mark.parametrize(
    ("declared", "units", "expected"),
    [
        ({11: 1, 17: 1}, 4, 4),
        ({11: 1, 17: 1}, None, 4),
        ({11: 4, 17: 4}, 4, 1),  # as pymatgen writes
        ({11: 4, 17: 4}, 1, 1),
        ({11: 4, 17: 4}, None, 1),
        ({11: 2, 17: 2}, 2, 2),
        ({11: 1, 17: 1}, 2, 0),
        ({11: 4, 17: 4}, 3, 0),
        ({11: 8, 17: 8}, None, 0),
        ({11: 1, 17: 2}, None, 0),
        ({11: 1, 17: 1.02}, None, 0),
        ({11: 0.99, 17: 1}, 4, 0),
        ({11: 0.67, 17: 0.67}, 6, 6),  # rounded
        ({11: 1}, None, 0),
        ({11: 1, 17: 1, 1: 1}, None, 0),
    ],
)
def test_formula_units(declared, units, expected):
    assert multiple({11: 4, 17: 4}, declared, units) == expected


@pytest.mark.parametrize("written", ["4", "'4'", '"4"', "4.0", "4(0)", "'4(0)'"])
@pytest.mark.parametrize("declared", ["_chemical_formula_sum 'Na Cl'\n", ""])
def test_units_as_they_may_be_written(written, declared):
    """Sites of a quarter of the cell, without symmetry; and of the whole one."""
    units = f"{declared}_cell_formula_units_Z {written}\n"
    formulas = "Cl1 Na1 (Z 4)" if declared else "Z 4"
    assert reason(cif() + units).endswith(f"{formulas} is declared, Cl1 Na1 was read; it names no symmetry")
    assert formula(parse_cif(cif(operations=FACE_CENTRED) + units).crystal) == {"Na": 4, "Cl": 4}


@pytest.mark.parametrize("written", ["Z=4", "four", "-4", "4.5", "nan", "inf"])
def test_units_that_are_no_number(written):
    why = f"formula: _cell_formula_units_Z is {written!r}, and no whole number"
    assert reason(cif(operations=FACE_CENTRED, cell_formula_units_Z=written)) == why


@pytest.mark.parametrize("written", [".", "?", "'?'", "0"])
def test_units_that_are_not_said(written):
    text = cif(operations=FACE_CENTRED, chemical_formula_sum="Na Cl") + f"_cell_formula_units_Z {written}\n"
    assert formula(parse_cif(text).crystal) == {"Na": 4, "Cl": 4}


def test_one_unit_that_the_rest_of_the_file_contradicts():
    """Many programs write Z 1 whatever the cell holds."""
    one = {"chemical_formula_sum": "Na Cl", "cell_formula_units_Z": 1}
    assert reason(cif(operations=FACE_CENTRED, **one)) == "formula: Cl1 Na1 (Z 1) is declared, Cl4 Na4 was read"
    columns = "label type_symbol fract_x fract_y fract_z symmetry_multiplicity"
    text = cif([(*site, 4) for site in NA_CL], columns, **one)
    assert reason(text) == "multiplicity: 4 of Na1 is declared, 1 was read; it names no symmetry"
    assert formula(parse_cif(cif([(*site, 1) for site in NA_CL], columns, **one)).crystal) == {"Na": 1, "Cl": 1}


@pytest.mark.parametrize("symbol", ["O", "N", "H", "F"])
def test_half_a_molecule(symbol):
    """pymatgen counts these elements in molecules, of which one atom is 0 formula units."""
    text = Structure(Lattice.cubic(3.0), [symbol], [[0, 0, 0]]).to(fmt="cif")
    assert "_cell_formula_units_Z   0" in text
    assert formula(parse_cif(text).crystal) == {symbol: 1}


def test_a_formula_that_is_none():
    assert reason(cif(chemical_formula_sum="C2 H5 O, 2H2O")) == "formula: 'C2 H5 O, 2H2O' is none"
    assert reason(cif(chemical_formula_sum="Na Qq")) == "formula: 'Na Qq' has the element 'Qq'"
    assert formula(parse_cif(cif(chemical_formula_sum="?")).crystal) == {"Na": 1, "Cl": 1}
