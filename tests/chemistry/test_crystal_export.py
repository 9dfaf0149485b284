"""Crystals as CIF and extended XYZ, read back."""

import ase.io
import gemmi
import numpy as np
import pytest
import torch
from ase.io.cif import parse_cif
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, TRICLINIC
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifFile, CifParser

from atomrl.core.records import Structures
from atomrl.export.crystals import AnnotatedCrystals, write_cif, write_extxyz
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError

CRYSTALS = [ROCK_SALT, CAESIUM_CHLORIDE, PEROVSKITE, TRICLINIC]


@pytest.fixture
def samples():
    """Four good crystals, then a NaN lattice, a flat cell and an atomic number that is no element."""
    structures = from_pymatgen([*CRYSTALS, ROCK_SALT, ROCK_SALT, CAESIUM_CHLORIDE])
    cell, numbers = structures.cell.clone(), structures.numbers.clone()
    cell[4, 0, 0] = torch.nan
    cell[5, 2] = cell[5, 1]
    numbers[6, 0] = 150
    broken = Structures(numbers, structures.positions, structures.mask, cell)
    verdicts = [{"formula": f"row {row}", "e_above_hull": 0.125 * row, "msun": row == 1} for row in range(7)]
    return AnnotatedCrystals(broken, [f"g{row:02d}" for row in range(7)], verdicts)


def test_cif(samples, tmp_path):
    path = tmp_path / "out" / "crystals.cif"
    assert write_cif(path, samples) == 4
    blocks = CifFile.from_str(path.read_text()).data
    assert list(blocks) == ["g00", "g01", "g02", "g03"]
    assert blocks["g01"]["_atomrl_e_above_hull"] == "0.125"
    assert blocks["g01"]["_atomrl_msun"] == "True"
    assert blocks["g03"]["_atomrl_formula"] == "row 3"
    with pytest.warns(UserWarning, match="Missing elements"):  # it compares every formula with the first
        read = CifParser(path).parse_structures(primitive=False)
    assert len(read) == 4
    for crystal, expected in zip(read, CRYSTALS, strict=True):
        assert [site.specie for site in crystal] == [site.specie for site in expected]
        np.testing.assert_allclose(crystal.lattice.parameters, expected.lattice.parameters, atol=1e-5)
        assert StructureMatcher(stol=0.01).fit(crystal, expected)


def test_a_cif_that_ase_reads(samples, tmp_path):
    write_cif(tmp_path / "a.cif", samples)
    assert [len(atoms) for atoms in ase.io.read(tmp_path / "a.cif", index=":")] == [8, 2, 5, 2]


def test_noble_gases_do_not_warn(tmp_path):
    argon = CAESIUM_CHLORIDE.copy()
    argon.replace(0, "Ar")
    assert write_cif(tmp_path / "a.cif", AnnotatedCrystals(from_pymatgen([argon]), ["ar"], [{}])) == 1


def test_extxyz(samples, tmp_path):
    write_extxyz(tmp_path / "crystals.extxyz", samples)
    read = ase.io.read(tmp_path / "crystals.extxyz", index=":")
    assert [atoms.info["sample_id"] for atoms in read] == samples.ids
    assert read[1].info["e_above_hull"] == 0.125
    assert bool(read[1].info["msun"])
    assert read[2].pbc.all()
    np.testing.assert_allclose(read[3].cell.array, TRICLINIC.lattice.matrix, atol=1e-6)
    np.testing.assert_allclose(read[3].positions, TRICLINIC.cart_coords, atol=1e-6)
    assert read[6].get_chemical_symbols() == ["X", "Cl"]


TEXTS = [
    *("NaN", "InF", "00012", "1", "1e5", "1 2 3", "T", "True", "F", "None", "", "?", ".", "#1", "_x", "data_y"),
    *("[1, 2]", "a'b", 'a"b', "a b", "c:\\x", "loop_", "$a", "a=b", "{a}"),
    *("5(2)", "-5.64(12)", "1/2", "0x10", "1_000", "InF3", "a\\b", "\\", "a'b\"c d\"e' f"),
]
SEVERAL_LINES = ["two\nlines", "two\n\nlines", "a\r\nb", "end\n", "loop_\n_a", ";\nx", "x\n;y", "x\n  ;y"]


@pytest.mark.parametrize("text", SEVERAL_LINES)
def test_a_text_of_several_lines_leaves_the_rest_readable(text, tmp_path):
    """A semicolon at the beginning of a line, which CIF 1.1 cannot say, stands on the one before."""
    path, read = tmp_path / "a.cif", text.replace("\r", "").rstrip("\n").replace("\n;", " ;").replace("\n  ;", " ;")
    verdicts = [{"note": text, "msun": True}] * 2
    write_cif(path, AnnotatedCrystals(from_pymatgen([CAESIUM_CHLORIDE] * 2), ["a", "b"], verdicts))
    for block in gemmi.cif.read(str(path)):
        assert gemmi.cif.as_string(block.find_value("_atomrl_note")) == read
        assert block.find_value("_atomrl_msun") == "True"
    assert len(ase.io.read(path, index=":")) == len(CifFile.from_file(path).data) == 2


def test_ase_reads_texts_as_texts(tmp_path):
    """`5(2)` is no 5.0, as a number with its uncertainty would be."""
    for text in ("5(2)", "1e5", "1/2", "00012"):
        write_cif(tmp_path / "a.cif", AnnotatedCrystals(from_pymatgen([CAESIUM_CHLORIDE]), ["a"], [{"note": text}]))
        with (tmp_path / "a.cif").open("rb") as file:
            [block] = parse_cif(file)
        assert block["_atomrl_note"] == text


@pytest.fixture
def texts():
    """As many crystals as there are texts that a reader could take for something else; ids that look like numbers."""
    verdicts = [{"formula": text, "e_above_hull": 0.5, "unknown": float("nan"), "msun": True} for text in TEXTS]
    ids = [f"{row:05d}" for row in range(len(TEXTS))]
    return AnnotatedCrystals(from_pymatgen([CAESIUM_CHLORIDE] * len(TEXTS)), ids, verdicts)


def test_extxyz_gives_back_what_was_written(texts, tmp_path):
    write_extxyz(tmp_path / "a.extxyz", texts)
    read = [atoms.info for atoms in ase.io.read(tmp_path / "a.extxyz", index=":")]
    assert [info["formula"] for info in read] == TEXTS
    assert [info["sample_id"] for info in read] == texts.ids
    assert all(info["e_above_hull"] == 0.5 and np.isnan(info["unknown"]) and info["msun"] for info in read)


def test_cif_gives_back_what_was_written(texts, tmp_path):
    write_cif(tmp_path / "a.cif", texts)
    blocks = list(gemmi.cif.read(str(tmp_path / "a.cif")))
    assert [block.name for block in blocks] == texts.ids
    values = [block.find_value("_atomrl_formula") for block in blocks]
    assert [gemmi.cif.as_string(value) for value in values] == TEXTS
    assert not [value for value in values if np.isfinite(gemmi.cif.as_number(value)) or gemmi.cif.is_null(value)]
    assert all(gemmi.cif.as_number(block.find_value("_atomrl_e_above_hull")) == 0.5 for block in blocks)
    assert list(CifFile.from_file(tmp_path / "a.cif").data) == texts.ids
    assert len(ase.io.read(tmp_path / "a.cif", index=":")) == len(TEXTS)


def test_names_of_verdicts_that_no_item_of_a_cif_can_have(tmp_path):
    """A user's property may be called as a column of a table is; one such name made the whole file unreadable."""
    verdicts = {"predicted_band gap (eV)": 1.5, "predicted_Gap": 2.0, "predicted_gap": 2.5, "predicted_E in Å": 3.0}
    write_cif(tmp_path / "a.cif", AnnotatedCrystals(from_pymatgen([ROCK_SALT]), ["a"], [verdicts]))
    (block,) = gemmi.cif.read(str(tmp_path / "a.cif"))
    names = ["predicted_band_gap_(eV)", "predicted_Gap", "predicted_gap_2", "predicted_E_in_"]
    assert [float(block.find_value(f"_atomrl_{name}")) for name in names] == list(verdicts.values())
    assert CifFile.from_file(tmp_path / "a.cif").data["a"]["_atomrl_predicted_band_gap_(eV)"] == "1.5"
    assert len(ase.io.read(tmp_path / "a.cif")) == len(ROCK_SALT)


@pytest.mark.parametrize("shift", [0.0, 1e-5, 1e-4, 9e-4])
def test_coincident_atoms_do_not_shift_the_rest(tmp_path, shift):
    """pymatgen reads no structure of such a block, ASE one atom less; it is left out, and the extended XYZ has it."""
    places = [[0.1, 0.1, 0.1], [1.1 + shift, 0.1, 0.1 - shift], [0.6, 0.6, 0.6]]
    coincident = Structure(Lattice.cubic(6.0), ["Na", "Na", "O"], places)
    crystals = [ROCK_SALT, coincident, CAESIUM_CHLORIDE, PEROVSKITE]
    samples = AnnotatedCrystals(from_pymatgen(crystals), ["a", "b", "c", "d"], [{}] * 4)
    assert write_cif(tmp_path / "a.cif", samples) == 3
    assert list(CifFile.from_file(tmp_path / "a.cif").data) == ["a", "c", "d"]
    with pytest.warns(UserWarning, match="Missing elements"):
        read = CifParser(tmp_path / "a.cif").parse_structures(primitive=False)
    by_ase = ase.io.read(tmp_path / "a.cif", index=":")
    assert [len(crystal) for crystal in read] == [len(atoms) for atoms in by_ase] == [8, 2, 5]
    write_extxyz(tmp_path / "a.extxyz", samples)
    assert [len(atoms) for atoms in ase.io.read(tmp_path / "a.extxyz", index=":")] == [8, 3, 2, 5]


def test_what_does_not_belong_together_is_refused(samples):
    with pytest.raises(UserError, match="lengths"):
        AnnotatedCrystals(samples.structures, samples.ids[:3], samples.verdicts)
    with pytest.raises(UserError, match="without spaces"):
        AnnotatedCrystals(samples.structures, ["a b", *samples.ids[1:]], samples.verdicts)
    for name, message in (("é", "without spaces"), ("x" * 75, "at most 74"), (samples.ids[1].upper(), "the same id")):
        with pytest.raises(UserError, match=message):
            AnnotatedCrystals(samples.structures, [name, *samples.ids[1:]], samples.verdicts)
    no_cell = Structures(samples.structures.numbers, samples.structures.positions, samples.structures.mask)
    with pytest.raises(UserError, match="cells"):
        AnnotatedCrystals(no_cell, samples.ids, samples.verdicts)
