"""CIF text: the atoms and the cell that it declares, or the reason why there are none."""

import numpy as np
import pytest
from cif_texts import FACE_CENTRED, NA_CL, SPGLIB, cif, formula, reason, rows
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, TRICLINIC
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.io.cif import CifWriter

from atomrl.structures.cells import to_arrays
from atomrl.structures.cif import parse_cif

SKEW = np.array([[1, 3, 0], [0, 1, 0], [-2, 4, 1]])


# Atoms


@pytest.mark.parametrize("row", rows("silent_wrong_crystal.csv"))
def test_the_declared_crystal_or_none(row):
    if row["material_id"] in {"type_OH", "type_NH4", "label_Wat", "H_not_located", "no_symmetry"}:
        assert reason(row["cif"]).startswith(("formula: ", "element: "))
    else:
        expected = Composition(row["expected_formula"].replace(" ", "")).as_dict()
        assert formula(parse_cif(row["cif"]).crystal) == expected


@pytest.mark.parametrize("kind", ["structural", "moiety"])
@pytest.mark.parametrize(
    ("text", "declared"),
    [
        *(("Na Cl2", "Cl2 Na1"), ("K Al (S O4)2 (H2 O)12", "Al1 H24 K1 O20 S2"), ("((N H4)2) Na", "H8 N2 Na1")),
        *((text, None) for text in ("NaCl", "Na4Cl4", "(Na Cl)2", "Na (Cl)")),
        *(
            (text, None)
            for text in ("NACL2", "SIO2", "Halite", "Na+ Cl2-", "Na Cl 2H2O", "Na0.9 Cl", "(Na", "Na)", "?")
        ),
        *((text, None) for text in ("", "Na0 Cl", "|Na| Cl2", "(Na,K) Cl", "Na2 Cl, H2 O", "Na2 Cl 1+", "2(Na2 Cl)")),
    ],
)
def test_another_formula_counts_where_there_is_no_sum(kind, text, declared):
    """And where it is beyond doubt: the second line is right, what follows says nothing."""
    text = cif(operations=FACE_CENTRED, **{f"chemical_formula_{kind}": text})
    if declared is None:
        assert formula(parse_cif(text).crystal) == {"Na": 4, "Cl": 4}
        return
    why = f"formula: _chemical_formula_{kind} declares {declared}, Cl4 Na4 was read"
    assert reason(text) == why
    assert formula(parse_cif(text + "_chemical_formula_sum 'Na Cl'\n").crystal) == {"Na": 4, "Cl": 4}


def test_both_formulas_are_named():
    text = cif([("O1", "O", 0, 0, 0)], chemical_formula_sum="H2 O1")
    assert reason(text) == "formula: H2 O1 is declared, O1 was read; it names no symmetry"


@pytest.mark.parametrize(
    ("symbol", "declared", "why"),
    [
        ("OH", "Na1 O1 H1", "element: 'X1' has no element's symbol, but 'OH'"),
        ("H2O", "Na1 O1 H2", "element: 'X1' has no element's symbol, but 'H2O'"),
        ("NH4", None, "element: 'NH4' may be Nh or not, and no formula says"),
        ("CN", "Na1 C1 N1", "formula: C1 N1 Na1 is declared, Cn1 Na1 was read; it names no symmetry"),
        ("CN", None, "element: 'CN' may be Cn or not, and no formula says"),
        ("CO", "Na1 C1 O1", "formula: C1 Na1 O1 is declared, Co1 Na1 was read; it names no symmetry"),
        ("Qq", None, "element: 'X1' has no element's symbol, but 'Qq'"),
    ],
)
def test_groups_of_atoms_are_no_element(symbol, declared, why):
    items = {} if declared is None else {"chemical_formula_sum": declared}
    assert reason(cif([("Na1", "Na", 0, 0, 0), ("X1", symbol, 0.5, 0.5, 0.5)], **items)) == why


@pytest.mark.parametrize("symbol", ["Cl", "Cl-", "Cl1-", "Cl-1", "Cl0+", "Cl0.5-", "Cl1"])
def test_elements_with_charges(symbol):
    sites = [NA_CL[0], ("X1", symbol, 0.5, 0.5, 0.5)]
    assert formula(parse_cif(cif(sites)).crystal) == {"Na": 1, "Cl": 1}


@pytest.mark.parametrize("symbol", ["H2", "N3", "C60", "O2"])
def test_a_number_without_a_sign_may_count_atoms(symbol):
    sites = [NA_CL[0], ("X1", symbol, 0.5, 0.5, 0.5)]
    letters = symbol.strip("0236")
    assert reason(cif(sites)) == f"element: {symbol!r} may be {letters} or not, and no formula says"
    assert reason(cif(sites, chemical_formula_sum=f"Na {symbol}")).startswith("formula: ")
    for kind in (cif(sites, chemical_formula_sum=f"Na {letters}"), cif([NA_CL[0], (symbol, *sites[1][1:])])):
        assert formula(parse_cif(kind).crystal) == {"Na": 1, letters: 1}


def test_capitals_are_read_where_the_formula_confirms_them():
    sites = [("NA1", "NA", 0, 0, 0), ("CL1", "CL", 0.5, 0.5, 0.5)]
    assert formula(parse_cif(cif(sites, chemical_formula_sum="Na Cl")).crystal) == {"Na": 1, "Cl": 1}
    assert reason(cif(sites)).startswith("element: 'NA' may be Na")


def test_labels_stand_for_symbols_that_are_absent():
    columns = "label fract_x fract_y fract_z"
    assert formula(parse_cif(cif([("Na1", 0, 0, 0), ("Cl_a", 0.5, 0.5, 0.5)], columns)).crystal) == {"Na": 1, "Cl": 1}
    alpha = [("CA1", 0, 0, 0), ("O1", 0.5, 0.5, 0.5)]
    assert formula(parse_cif(cif(alpha, columns, chemical_formula_sum="Ca O")).crystal) == {"Ca": 1, "O": 1}
    assert reason(cif(alpha, columns, chemical_formula_sum="C O")).startswith("formula: C1 O1 is declared, Ca1 O1")
    assert reason(cif(alpha, columns)).startswith("element: 'CA1' may be Ca")


def test_a_tetrahedron_is_no_tritium():
    """As zeolites label silicon."""
    sites = [("T1", 0, 0, 0), ("O1", 0.5, 0.5, 0.5)]
    assert reason(cif(sites, "label fract_x fract_y fract_z")) == ("element: 'T1' may be T or not, and no formula says")


@pytest.mark.parametrize("label", ["Al/Si1", "Al1/Si1", "Fe|Mn", "Na+K", "Nb-Ta", "Ca,Sr"])
def test_a_label_of_two_elements_is_neither(label):
    """As of a site that both hold, in files without types and occupancies."""
    sites, columns = [(label, 0, 0, 0), ("O1", 0.5, 0.5, 0.5)], "label fract_x fract_y fract_z"
    first = label[:2]
    assert reason(cif(sites, columns)) == f"element: {label!r} may be {first} or not, and no formula says"
    assert formula(parse_cif(cif(sites, columns, chemical_formula_sum=f"{first} O")).crystal) == {first: 1, "O": 1}


@pytest.mark.parametrize("label", ["Na1+", "Na1-a", "Na/2", "Na_K", "Na(1)"])
def test_what_follows_a_label_may_be_no_element(label):
    text = cif([(label, 0, 0, 0), ("O1", 0.5, 0.5, 0.5)], "label fract_x fract_y fract_z")
    assert formula(parse_cif(text).crystal) == {"Na": 1, "O": 1}


def test_deuterium_is_hydrogen():
    sites = [("Li1", "Li", 0, 0, 0), ("D1", "D", 0.5, 0.5, 0.5)]
    assert formula(parse_cif(cif(sites, chemical_formula_sum="Li D")).crystal) == {"Li": 1, "H": 1}


def test_hydrogens_without_places():
    columns = "label type_symbol fract_x fract_y fract_z attached_hydrogens"
    sites = [(*NA_CL[0], 0), (*NA_CL[1][:1], "O", *NA_CL[1][2:], 2)]
    assert reason(cif(sites, columns)) == "hydrogens: Cl1 has 2 without places"
    assert formula(parse_cif(cif([(*site, 0) for site in NA_CL], columns)).crystal) == {"Na": 1, "Cl": 1}


# Numbers


@pytest.mark.parametrize("occupancy", [".", "?", "1", "1.00", "1.0(2)"])
def test_a_whole_atom(occupancy):
    columns = "label type_symbol fract_x fract_y fract_z occupancy"
    assert formula(parse_cif(cif([(*site, occupancy) for site in NA_CL], columns)).crystal) == {"Na": 1, "Cl": 1}


@pytest.mark.parametrize("occupancy", ["0.5", "0.99", "1.2", "-1", "half"])
def test_no_whole_atom(occupancy):
    columns = "label type_symbol fract_x fract_y fract_z occupancy"
    text = cif([(*NA_CL[0], 1), (*NA_CL[1], occupancy)], columns)
    assert reason(text) == f"disordered: the occupancy of Cl1 is {occupancy}"


def test_what_is_no_atom_is_left_out():
    columns = "label type_symbol fract_x fract_y fract_z occupancy calc_flag"
    sites = [(*site, 1, "d") for site in NA_CL]
    sites += [("H1", "H", 0.3, 0, 0, 1, "dum"), ("H2", "H", 0.7, 0, 0, 0, "d")]
    assert formula(parse_cif(cif(sites, columns, chemical_formula_sum="Na Cl")).crystal) == {"Na": 1, "Cl": 1}


@pytest.mark.parametrize(
    ("groups", "whole"), [("1 2", False), (". 1", True), ("0 1", True), ("1 1", True), (". .", True)]
)
def test_alternatives_of_each_other(groups, whole):
    """Two places of one atom, without occupancies."""
    sites = [(*site, group) for site, group in zip(NA_CL, groups.split(), strict=True)]
    text = cif(sites, "label type_symbol fract_x fract_y fract_z disorder_group")
    if whole:
        assert formula(parse_cif(text).crystal) == {"Na": 1, "Cl": 1}
    else:
        assert reason(text) == "disordered: its sites belong to the disorder groups 1, 2"


@pytest.mark.parametrize("value", [".", "?", "nan", "inf", "1,5", "−0.5", "1/3"])
def test_a_coordinate_that_is_no_number(value):
    why = reason(cif([NA_CL[0], ("Cl1", "Cl", 0.5, f"'{value}'", 0.5)]))
    assert why.startswith("coordinate: _atom_site_fract_y of Cl1 is")
    assert value in why


@pytest.mark.parametrize("value", ["\u22120.5", "0.5\u00a00"])
def test_a_coordinate_beyond_ascii(value):
    """gemmi ends the loop there, and counts its values."""
    why = "cif: line 9: Wrong number of values in loop _atom_site_*"
    broken = cif([NA_CL[0], ("Cl1", "Cl", 0.5, value, 0.5)], chemical_name="\u03b1 salt")
    assert reason(broken) == f"{why}; outside of quotation marks stands what is not ASCII, perhaps a long minus sign"
    assert reason(cif([NA_CL[0], NA_CL[1][:4]], chemical_name="\u03b1 salt")) == why


@pytest.mark.parametrize("value", ["?", "0", "-4", "nan"])
def test_a_cell_that_is_none(value):
    assert reason(cif(cell={"length_b": value})) == f"cell: _cell_length_b is {value}"
    assert reason(cif().replace("_cell_length_b", "_cell_length_x")) == "cell: _cell_length_b is missing"


@pytest.mark.parametrize("value", ["180", "190", "240", "0"])
def test_an_angle_that_is_none(value):
    """Its cosine would be that of another one: 240 that of 120."""
    assert reason(cif(cell={"angle_gamma": value})) == f"cell: _cell_angle_gamma is {value}"


@pytest.mark.parametrize("written", ["'5.64'", "5.64(2)", "'5.64(2)'"])
def test_a_cell_as_it_may_be_written(written):
    tags = ("length_a", "length_b", "length_c")
    assert parse_cif(cif(cell=dict.fromkeys(tags, written)), niggli=False).crystal.lattice[0, 0] == 5.64


def test_a_flat_cell():
    assert reason(cif(cell={"angle_alpha": 20, "angle_beta": 20, "angle_gamma": 150})).startswith(
        "cell: its angles 20,"
    )


@pytest.mark.parametrize(
    ("cell", "lengths"),
    [
        (dict.fromkeys(("length_a", "length_b", "length_c"), 0.001), "0.001 to 0.001"),
        ({"angle_alpha": 60, "angle_beta": 60, "angle_gamma": 119.99999}, "0.0031 to 5.64"),
        ({"length_c": 90000}, "5.6 to 9e+04"),
    ],
)
def test_a_cell_whose_reduction_takes_all_memory(cell, lengths):
    """Seconds, and then the machine; a cell that is not reduced costs nothing."""
    assert reason(cif(cell=cell)) == f"niggli: vectors of {lengths} Å span its lattice"
    assert len(parse_cif(cif(cell=cell), niggli=False).crystal.numbers) == 2
    assert len(parse_cif(cif(cell={"length_c": 90})).crystal.numbers) == 2


# Text


@pytest.mark.parametrize("row", rows("reason_hidden.csv"))
def test_each_row_has_its_own_cause(row):
    expected = {
        "good": None,
        "escaped_nl": "cif: its line breaks are written as",
        "HD_mix": "disordered: the occupancy of D1 is 0.9",
        "qcoords": "coordinate: _atom_site_fract_x of Cl1 is ?",
        "nancoord": "coordinate: _atom_site_fract_x of Cs1 is nan",
    }[row["material_id"]]
    if expected is None:
        assert formula(parse_cif(row["cif"]).crystal) == {"Cs": 1, "Cl": 1}
    else:
        assert reason(row["cif"]).startswith(expected)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cif: 0 of its blocks list"),
        ("not a crystal", "cif: line 1: expected block header (data_)"),
        (PEROVSKITE.to(fmt="cif")[:300], "cif: line "),
        (cif(sites=()), "cif: "),
        (cif() + cif().replace("data_x", "data_y"), "cif: 2 of its blocks list"),
        (cif() + "_cell_length_a 5\n", "cif: line 16 in data_x: duplicate tag _cell_length_a"),
        (PEROVSKITE.to(fmt="cif").replace("3.95", "?"), "cell: _cell_length_a is ?"),
        (Structure(Lattice.cubic(3), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]).to(fmt="cif"), "disordered: "),
        (ROCK_SALT.to(fmt="cif").replace("Na", "Qq"), "element: 'Qq0' has no element's symbol, but 'Qq'"),
    ],
)
def test_broken_text_has_a_reason(text, why):
    assert reason(text).startswith(why)


def test_blocks_without_atoms_are_passed_over():
    assert formula(parse_cif("data_global\n_journal_year 2020\n" + cif()).crystal) == {"Na": 1, "Cl": 1}


# What pymatgen writes


@SPGLIB
@pytest.mark.parametrize("symprec", [None, 0.01])
@pytest.mark.parametrize("crystal", [ROCK_SALT, CAESIUM_CHLORIDE, PEROVSKITE, TRICLINIC])
def test_round_trip(crystal, symprec):
    read = parse_cif(str(CifWriter(crystal, symprec=symprec)), niggli=False).crystal
    np.testing.assert_array_equal(np.sort(read.numbers), np.sort(to_arrays(crystal).numbers))
    assert read.numbers.dtype == np.int64
    assert StructureMatcher(stol=0.01).fit(Structure(read.lattice, read.numbers, read.frac_coords), crystal)


def test_cell_as_written():
    skewed = Structure(Lattice(SKEW @ np.eye(3) * 4), ["Po"], [[0, 0, 0]])
    written, reduced = (parse_cif(skewed.to(fmt="cif"), niggli=niggli).crystal for niggli in (False, True))
    assert np.linalg.norm(written.lattice, axis=1).max() > 12
    assert np.linalg.norm(reduced.lattice, axis=1).max() == pytest.approx(4, abs=1e-5)
