"""CIF text: the symmetry that it declares, and the atoms that follow from it."""

from collections import Counter

import gemmi
import numpy as np
import pytest
from ase.data import chemical_symbols
from cif_texts import FACE_CENTRED, NA_CL, SPGLIB, cif, formula, reason
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from atomrl.structures.cif import parse_cif

CUBIC = tuple(operation.triplet() for operation in gemmi.find_spacegroup_by_name("F m -3 m").operations())


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
