"""Crystals as CIF and extended XYZ, read back."""

import ase.io
import numpy as np
import pytest
import torch
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, TRICLINIC
from pymatgen.analysis.structure_matcher import StructureMatcher
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


def test_what_does_not_belong_together_is_refused(samples):
    with pytest.raises(UserError, match="lengths"):
        AnnotatedCrystals(samples.structures, samples.ids[:3], samples.verdicts)
    with pytest.raises(UserError, match="without spaces"):
        AnnotatedCrystals(samples.structures, ["a b", *samples.ids[1:]], samples.verdicts)
    no_cell = Structures(samples.structures.numbers, samples.structures.positions, samples.structures.mask)
    with pytest.raises(UserError, match="cells"):
        AnnotatedCrystals(no_cell, samples.ids, samples.verdicts)
