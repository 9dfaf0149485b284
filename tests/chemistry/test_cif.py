"""CIF text: the crystal that it declares, or the reason why there is none."""

import csv
from collections import Counter
from pathlib import Path

import gemmi
import numpy as np
import pytest
from ase.data import chemical_symbols
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, TRICLINIC
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.io.cif import CifWriter

from atomrl.structures.cells import to_arrays
from atomrl.structures.cif import multiple, parse_cif
from atomrl.workers.failure import Failure

CASES = Path(__file__).parents[1] / "data" / "cif_cases"
SKEW = np.array([[1, 3, 0], [0, 1, 0], [-2, 4, 1]])

SPGLIB = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING")

CELL = {"length_a": 5.64, "length_b": 5.64, "length_c": 5.64, "angle_alpha": 90, "angle_beta": 90, "angle_gamma": 90}
NA_CL = (("Na1", "Na", 0, 0, 0), ("Cl1", "Cl", 0.5, 0.5, 0.5))


def cif(sites=NA_CL, columns="label type_symbol fract_x fract_y fract_z", operations=(), cell=(), **items):
    """A short CIF; `items` by the tag without its underscore, with - as __."""
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in {**CELL, **dict(cell)}.items())]
    lines += [f"_{name.replace('__', '-')} '{value}'" for name, value in items.items()]
    lines += ["loop_", " _symmetry_equiv_pos_as_xyz", *(f" '{text}'" for text in operations)] if operations else []
    lines += ["loop_", *(f" _atom_site_{name}" for name in columns.split())]
    return "\n".join([*lines, *(" ".join(map(str, site)) for site in sites)]) + "\n"


def formula(crystal):
    return dict(Counter(chemical_symbols[number] for number in crystal.numbers))


def reason(text):
    with pytest.raises(Failure) as caught:
        parse_cif(text)
    return caught.value.reason


def rows(name):
    with (CASES / name).open(newline="") as file:
        return [pytest.param(row, id=row["material_id"]) for row in csv.DictReader(file)]


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


# Formula


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


# Symmetry


CUBIC = tuple(operation.triplet() for operation in gemmi.find_spacegroup_by_name("F m -3 m").operations())
FACE_CENTRED = ("x,y,z", "x+1/2,y+1/2,z", "x+1/2,y,z+1/2", "x,y+1/2,z+1/2")


@pytest.mark.parametrize(
    "items",
    [
        {"symmetry_space_group_name_H__M": "F m -3 m"},
        {"space_group_name_H__M_alt": "Fm-3m"},
        {"space_group_name_Hall": "-F 4 2 3"},
        {"symmetry_Int_Tables_number": 225},
        {"space_group_IT_number": 225, "symmetry_space_group_name_H__M": "F m 3 m"},
        {"operations": FACE_CENTRED},
        {"operations": FACE_CENTRED, "symmetry_space_group_name_H__M": "F 1"},
    ],
)
def test_symmetry_is_applied(items):
    parsed = parse_cif(cif(**items), niggli=False)
    assert not parsed.assumed_p1
    assert formula(parsed.crystal) == {"Na": 4, "Cl": 4}
    lattice, numbers, frac_coords = parsed.crystal.lattice, parsed.crystal.numbers, parsed.crystal.frac_coords
    assert StructureMatcher(stol=0.01).fit(Structure(lattice, numbers, frac_coords), ROCK_SALT)


@pytest.mark.parametrize("origin", [":2", " :2", "Z", " Z", " z", ":Z", "O2", " O2", " o2", ":o2", " :O2"])
@pytest.mark.parametrize("symbol", ["F d -3 m", "Fd-3m"])
def test_origins_as_they_may_be_written(symbol, origin):
    site, other = [("Si1", "Si", 0.125, 0.125, 0.125)], origin.translate(str.maketrans("2Zz", "1Ss"))
    for written, count in ((origin, 8), (other, 16)):
        text = cif(site, space_group_name_H__M_alt=symbol + written)
        assert len(parse_cif(text, niggli=False).crystal.numbers) == count


@pytest.mark.parametrize("name", ["F d -3 m:2", "F d -3 m Z", "F d -3 m O2", "-F 4vw 2vw 3"])
def test_origins(name):
    tag = "space_group_name_Hall" if name.startswith("-") else "space_group_name_H__M_alt"
    silicon = parse_cif(cif([("Si1", "Si", 0.125, 0.125, 0.125)], **{tag: name}), niggli=False).crystal
    assert len(silicon.numbers) == 8
    distances = Structure(silicon.lattice, silicon.numbers, silicon.frac_coords).distance_matrix
    assert distances[distances > 0].min() == pytest.approx(5.64 * 3**0.5 / 4)


def test_an_origin_that_only_the_formula_says():
    site = [("Si1", "Si", 0.125, 0.125, 0.125)]
    name = {"space_group_name_H__M_alt": "F d -3 m"}
    assert len(parse_cif(cif(site, chemical_formula_sum="Si8", **name), niggli=False).crystal.numbers) == 8
    assert len(parse_cif(cif(site, chemical_formula_sum="Si16", **name), niggli=False).crystal.numbers) == 16
    assert reason(cif(site, **name)).endswith("may be any of F d -3 m:1, F d -3 m:2")
    general = cif([("Si1", "Si", 0.03, 0.12, 0.29)], chemical_formula_sum="Si192", **name)
    assert reason(general).endswith("may be any of F d -3 m:1, F d -3 m:2")


def test_axes_that_the_cell_says():
    """Rhombohedral or hexagonal axes."""
    hexagonal = {"length_a": 3.0, "length_b": 3.0, "length_c": 12.0, "angle_gamma": 120}
    rhombohedral = {"angle_alpha": 60, "angle_beta": 60, "angle_gamma": 60}
    atom = [("Bi1", "Bi", 0, 0, 0)]
    for name in ({"symmetry_space_group_name_H__M": "R -3 m"}, {"space_group_IT_number": "166"}):
        assert len(parse_cif(cif(atom, cell=hexagonal, **name), niggli=False).crystal.numbers) == 3
        assert len(parse_cif(cif(atom, cell=rhombohedral, **name), niggli=False).crystal.numbers) == 1
    for start in ("R -3 m", "R-3m"):
        for axes, cell, other in (("H", hexagonal, rhombohedral), ("R", rhombohedral, hexagonal)):
            for suffix in (axes, f" {axes}", f":{axes}", f" :{axes}", axes.lower(), f" {axes.lower()}"):
                name = {"symmetry_space_group_name_H__M": start + suffix}
                assert parse_cif(cif(atom, cell=cell, **name)).crystal.numbers[0] == 83
                assert reason(cif(atom, cell=other, **name)) == f"symmetry: its cell is none of {start + suffix}"


def test_names_that_say_more_together():
    monoclinic, site = {"length_b": 4.0, "angle_beta": 100}, [("Na1", "Na", 0.1, 0.2, 0.3)]
    both = {"space_group_IT_number": 14, "symmetry_space_group_name_H__M": "P 21/n"}
    coordinates = parse_cif(cif(site, cell=monoclinic, **both), niggli=False).crystal.frac_coords
    assert np.abs(coordinates - [0.4, 0.7, 0.2]).max(1).min() < 1e-6
    silicon = {"space_group_name_H__M_alt": "F d -3 m", "space_group_IT_number": 227}
    site = [("Si1", "Si", 0.125, 0.125, 0.125)]
    assert reason(cif(site, **silicon)).endswith("may be any of F d -3 m:1, F d -3 m:2")
    assert len(parse_cif(cif(site, space_group_name_Hall="-F 4vw 2vw 3", **silicon)).crystal.numbers) == 8


@pytest.mark.parametrize("beside", [{"space_group_name_H__M_full": "F 4/m -3 2/m"}, {"space_group_IT_number": 0}])
def test_what_says_nothing_beside_a_symbol(beside):
    parsed = parse_cif(cif(symmetry_space_group_name_H__M="F m -3 m", **beside))
    assert formula(parsed.crystal) == {"Na": 4, "Cl": 4}
    assert reason(cif(**beside)).endswith("is no space group that is known, and no operations are listed")


def test_lengths_that_are_rounded():
    """Within 1 %, a cell is that of its operations."""
    parsed = parse_cif(cif(operations=CUBIC, cell={"length_c": 5.65}), niggli=False)
    assert formula(parsed.crystal) == {"Na": 4, "Cl": 4}


def test_a_setting_that_nothing_says():
    monoclinic = {"length_b": 4.0, "angle_beta": 100}
    text = cif([("Na1", "Na", 0.1, 0.2, 0.3)], cell=monoclinic, space_group_IT_number=14)
    assert reason(text).endswith("may be any of P 1 21/c 1, P 1 21/n 1, P 1 21/a 1")
    for symbol, place in (("P 21/c", [0.9, 0.7, 0.2]), ("P 21/n", [0.4, 0.7, 0.2]), ("P 1 21/a 1", [0.4, 0.7, 0.7])):
        named = cif([("Na1", "Na", 0.1, 0.2, 0.3)], cell=monoclinic, symmetry_space_group_name_H__M=symbol)
        coordinates = parse_cif(named, niggli=False).crystal.frac_coords
        assert len(coordinates) == 4
        assert np.abs(coordinates - place).max(1).min() < 1e-6, symbol


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ({"symmetry_space_group_name_H__M": "Q 7"}, "'Q 7' is no space group that is known"),
        ({"space_group_name_Hall": "nonsense"}, "'nonsense' is no space group that is known"),
        ({"space_group_IT_number": 300}, "'300' is no space group that is known"),
        ({"symmetry_space_group_name_H__M": "F m -3 m", "space_group_IT_number": 227}, "names both F m -3 m and 227"),
        ({"operations": ["x,y,z"], "symmetry_space_group_name_H__M": "F m -3 m"}, "it names F m -3 m, and lists only"),
        ({"operations": ["x,y,z"], "space_group_IT_number": 225}, "it names 225, and lists only operations of P1"),
        ({"operations": ["x,y,z", "x+1/4,y,z"]}, "its 2 listed operations are no group"),
        ({"operations": ["x,y,z", "x,y,q"]}, "'x,y,q' is no operation"),
        ({"operations": ["x,y"]}, "'x,y' is no operation"),
        ({"operations": ["x,y,z", "x,y,x"]}, "one of its operations changes volumes"),
        ({"operations": CUBIC, "symmetry_space_group_name_H__M": "P 1"}, "it names P 1, and lists operations of Fm-3m"),
        ({"operations": CUBIC, "cell": {"length_c": 7}}, "its cell is not that of the listed operations, of Fm-3m"),
        ({"operations": CUBIC, "cell": {"angle_beta": 80}}, "its cell is not that of the listed operations, of Fm-3m"),
        (
            {"space_group_name_Hall": "-P 2ybc", "symmetry_space_group_name_H__M": "P 21/n"},
            "names both -P 2ybc and P 21",
        ),
        ({"symmetry_space_group_name_H__M": "C -4 2 1 m", "space_group_IT_number": 113}, "'C -4 2 1 m' is no space gr"),
        ({"space_group_name_Hall": "-F 4 2 3 (0 0 3)", "space_group_IT_number": 225}, "'-F 4 2 3 (0 0 3)' is no space"),
        (
            {"space_group_magn.name_BNS": "P_a-1"},
            "_space_group_magn.name_BNS says that it is magnetic, which is not",
        ),
        ({"space_group.magn_number_BNS": "2.7"}, "_space_group.magn_number_BNS says that it is magnetic, which is not"),
        ({"space_group_symop.magn_operation_xyz": "x,y,z,+1"}, "magn_operation_xyz says that it is magnetic, which is"),
        ({"cell_modulation_dimension": "1"}, "is modulated, which is not read"),
    ],
)
def test_a_symmetry_that_is_not_that_of_the_atoms(items, why):
    text = reason(cif(**items))
    assert text.startswith("symmetry: ")
    assert why in text


def test_nothing_said_of_symmetry_is_said():
    assert parse_cif(cif()).assumed_p1
    assert not parse_cif(cif(operations=["x,y,z"])).assumed_p1
    assert not parse_cif(cif(symmetry_space_group_name_H__M="P 1")).assumed_p1


@SPGLIB
@pytest.mark.parametrize("crystal", [ROCK_SALT, ROCK_SALT.get_primitive_structure(), PEROVSKITE])
def test_all_atoms_may_be_listed_beside_the_name_of_their_group(crystal):
    """Of the conventional or a primitive cell, with the identity alone."""
    name, number = crystal.get_space_group_info()
    text = crystal.to(fmt="cif").replace("'P 1'", f"'{name}'").replace("_number   1", f"_number   {number}")
    assert len(parse_cif(text, niggli=False).crystal.numbers) == len(crystal)


@SPGLIB
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("crystal", [ROCK_SALT, PEROVSKITE, CAESIUM_CHLORIDE])
def test_all_atoms_may_be_listed_beside_what_makes_them(crystal, listed, declared):
    """Each of them once more: by all operations of the group, or by its name alone."""
    name = crystal.get_space_group_info()[0]
    group = gemmi.find_spacegroup_by_name(name)
    operations = [operation.triplet() for operation in group.operations()] if listed else []
    places = zip(crystal.atomic_numbers, crystal.frac_coords.tolist(), strict=True)
    sites = [(f"X{row}", chemical_symbols[number], *place) for row, (number, place) in enumerate(places)]
    items = {"chemical_formula_sum": crystal.composition.formula, "cell_formula_units_Z": 1} if declared else {}
    length = {f"length_{axis}": crystal.lattice.a for axis in "abc"}
    text = cif(sites, operations=operations, cell=length, symmetry_space_group_name_H__M=group.hm, **items)
    read = parse_cif(text, niggli=False).crystal
    assert formula(read) == Counter(chemical_symbols[number] for number in crystal.atomic_numbers)
    assert StructureMatcher(stol=0.01).fit(Structure(read.lattice, read.numbers, read.frac_coords), crystal)
    alone = cif(sites[:-1], operations=operations, cell=length, symmetry_space_group_name_H__M=group.hm, **items)
    assert declared or len(parse_cif(alone).crystal.numbers) <= len(crystal)


def test_two_atoms_that_are_listed_at_one_place_stay_two():
    """No symmetry makes one of the other, so that the cell is not sound."""
    sites = [*NA_CL, ("Na2", "Na", 0, 0, 0)]
    for operations in (["x,y,z"], FACE_CENTRED, CUBIC):
        read = formula(parse_cif(cif(sites, operations=operations), niggli=False).crystal)
        assert read["Na"] == 2 * read["Cl"]


def test_other_elements_at_one_place_are_no_images():
    sites = [*NA_CL, ("K1", "K", 0.5, 0.5, 0)]
    assert formula(parse_cif(cif(sites, operations=CUBIC), niggli=False).crystal) == {"Na": 4, "Cl": 4, "K": 4}


def test_all_atoms_may_be_more_symmetric_than_the_group_that_is_named():
    text = CAESIUM_CHLORIDE.to(fmt="cif").replace("'P 1'", "'P 4/m m m'").replace("_number   1", "_number   123")
    assert formula(parse_cif(text).crystal) == {"Cs": 1, "Cl": 1}


def test_rounded_coordinates_at_a_special_position():
    cell = {"length_a": 3.2, "length_b": 3.2, "length_c": 5.2, "angle_gamma": 120}
    for rounded in (("0.3333", "0.6667"), ("0.333", "0.667"), ("0.33", "0.67")):
        text = cif([("Mg1", "Mg", *rounded, 0.25)], cell=cell, symmetry_space_group_name_H__M="P 63/m m c")
        assert len(parse_cif(text, niggli=False).crystal.numbers) == 2


MAGNESIUM = {"cell": {"length_a": 3.2, "length_b": 3.2, "length_c": 5.2, "angle_gamma": 120}}
OF_SITE, NEWER = "symmetry_multiplicity", "site_symmetry_multiplicity"


@pytest.mark.parametrize(
    ("column", "written", "group", "why"),
    [
        (OF_SITE, "2", "P 63/m m c", None),
        (NEWER, "2.0", "P 63/m m c", None),
        (OF_SITE, ".", "P 63/m m c", None),
        (OF_SITE, "12", "P 63/m m c", None),  # as SHELXL: 12 of 24 operations leave it where it is
        (OF_SITE, "1", "P 1", None),
        (OF_SITE, "4", "P 63/m m c", "4 of Mg1 is declared, 2 was read"),
        (NEWER, "2e", "P 63/m m c", None),  # a letter, and what no site can make, say nothing
        (NEWER, "0", "P 63/m m c", None),
        (OF_SITE, "1", "P 63/m m c", None),  # so does 1 throughout
        (OF_SITE, "2", "", "2 of Mg1 is declared, 1 was read; it names no symmetry"),
    ],
)
def test_sites_make_as_many_atoms_as_the_file_says(column, written, group, why):
    """Where no formula says so too, as that of an element cannot."""
    items = {"symmetry_space_group_name_H__M": group} if group else {}
    columns = f"label type_symbol fract_x fract_y fract_z {column}"
    text = cif([("Mg1", "Mg", 0.3333, 0.6667, 0.25, written)], columns, **MAGNESIUM, **items)
    if why is None:
        assert len(parse_cif(text, niggli=False).crystal.numbers) == (1 if group == "P 1" else 2)
    else:
        assert reason(text) == f"multiplicity: {why}"


def test_all_sites_have_the_one_or_the_other_number():
    """A file whose special place has 2, as SHELXL, and whose general one 2 as well declares no crystal that it is."""
    columns = f"label type_symbol fract_x fract_y fract_z {OF_SITE}"
    special, general = ("O1", "O", 0, 0, 0), ("N1", "N", 0.1, 0.2, 0.3)
    for both in ((1, 2), (2, 1), (1, 1), (1, "2i"), ("1a", "2i"), (0, 0)):
        sites = [(*special, both[0]), (*general, both[1])]
        assert formula(parse_cif(cif(sites, columns, ["x,y,z", "-x,-y,-z"])).crystal) == {"O": 1, "N": 2}
    sites = [(*special, 2), (*general, 2)]
    assert reason(cif(sites, columns, ["x,y,z", "-x,-y,-z"])) == "multiplicity: 2 of O1 is declared, 1 was read"


@SPGLIB
def test_a_formula_and_its_units_say_more_than_multiplicities():
    """All atoms of a cell in P1 whose column is still that of the group; without the formula or Z it speaks."""
    text = ROCK_SALT.to(fmt="cif")
    kept = text.replace("  Na  Na0  1  ", "  Na  Na0  4  ")
    assert kept != text
    expected = formula(parse_cif(text).crystal)
    assert formula(parse_cif(kept).crystal) == expected
    for tag in ("_chemical_formula_sum", "_cell_formula_units_Z"):
        bare = "\n".join(line for line in kept.split("\n") if not line.startswith(tag))
        assert reason(bare) == "multiplicity: 4 of Na0 is declared, 1 was read"


def test_a_large_crystal_is_compared_with_the_group_that_it_names():
    """3,375 atoms: each pair of an atom and an image of another would take ten gigabytes."""
    crystal = Structure(Lattice.cubic(2.9), ["Fe"], [[0, 0, 0]])
    crystal.make_supercell(15)
    text = crystal.to(fmt="cif")
    named = text.replace("'P 1'", "'P 4/m m m'").replace("_number   1", "_number   123")
    assert len(parse_cif(named, niggli=False).crystal.numbers) == len(crystal)
    site = next(line for line in named.splitlines() if line.split()[:2] == ["Fe", "Fe_1"])
    moved = named.replace(site, site.replace("0.00000000", "0.02000000", 1))
    assert reason(moved) == "symmetry: it names P 4/m m m, and lists only operations of P1"


def test_operations_about_any_origin():
    text = cif([("Na1", "Na", 0.3, 0.2, 0.1)], operations=["x,y,z", "-x+0.123,-y,-z"])
    np.testing.assert_allclose(parse_cif(text, niggli=False).crystal.frac_coords[1], [0.823, 0.8, 0.9], atol=1e-9)


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
