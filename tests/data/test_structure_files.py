"""Structures of any origin are read as they are; what cannot be read stays, without atoms, with its reason."""

import gzip
import json
import re
from pathlib import Path

import ase.io
import numpy as np
import own_molecules
import pytest
from ase import Atoms
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON
from pymatgen.core import Molecule, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from rdkit import Chem

from atomrl.data.structure_files import ReadStructures, as_structures, domain_of_entries, read_cif, read_entries_of
from atomrl.structures.crystals import to_pymatgen
from atomrl.util.errors import UserError
from atomrl.workers.local import LocalWorkers

WORKERS = LocalWorkers(1)
BROKEN_CIF = "data_bad\n_cell_length_a 3\nloop_\n_atom_site_label\n_atom_site_fract_x\nNa\n"


def read(path: Path, domain: str | None = None) -> ReadStructures:
    entries = read_entries_of(path, WORKERS)
    return as_structures(path, entries, domain or domain_of_entries(path, entries))


def same(found: ReadStructures, expected: list[Structure]) -> None:
    """The same cells and atoms, each cell up to a rotation."""
    assert found.reasons == (None,) * len(expected)
    for one, other in zip(to_pymatgen(found.structures), expected, strict=True):
        assert one.composition == other.composition
        assert np.allclose(one.lattice.parameters, other.lattice.parameters, atol=1e-4)
        assert np.allclose(sorted(one.distance_matrix.flatten()), sorted(other.distance_matrix.flatten()), atol=1e-3)


def test_a_cif_of_several_blocks(tmp_path: Path) -> None:
    """A cell stays as it is: 8 atoms of rock salt are not reduced to 2."""
    path = tmp_path / "all.cif"
    texts = [structure.to(fmt="cif") for structure in (ROCK_SALT, SILICON)]
    note = "data_global\n_publ_section_title\n;\ndata_none of a structure\n;\n"
    path.write_text("\n".join([note, texts[0], BROKEN_CIF, texts[1]]))
    found = read(path)
    assert found.where == ("all.cif block 2 (NaCl)", "all.cif block 3 (bad)", "all.cif block 4 (Si)")
    assert found.structures.sizes.tolist() == [8, 0, 2]
    assert found.reasons[0] is found.reasons[2] is None
    assert found.reasons[1] is not None
    assert found.reasons[1].startswith("cif: ")
    said = found.report()
    assert said is not None
    assert said.startswith("1 of 3 cannot be read and count as failed: all.cif block 3 (bad): cif: ")


def test_a_block_with_tags_in_capitals_is_one_too(tmp_path: Path) -> None:
    path, text = tmp_path / "all.cif", ROCK_SALT.to(fmt="cif")
    tags = re.compile(r"^ *_\S+", re.MULTILINE)
    path.write_text(text + "\n" + tags.sub(lambda tag: tag[0].upper(), text))
    assert [entry.where for entry in read_cif(path)] == ["all.cif block 1 (NaCl)", "all.cif block 2 (NaCl)"]


def test_a_block_begins_after_blanks_and_a_byte_order_mark_too(tmp_path: Path) -> None:
    path, (salt, silicon) = (
        tmp_path / "all.cif",
        [structure.to(fmt="cif").partition("data_")[2] for structure in (ROCK_SALT, SILICON)],
    )
    for before in ("\ufeff", "  ", "\ufeff \t"):
        path.write_text(f"{before}data_{salt}  DATA_{silicon}", encoding="utf-8")
        found = read(path)
        assert found.where == ("all.cif block 1 (NaCl)", "all.cif block 2 (Si)")
        assert found.structures.sizes.tolist() == [8, 2]


def test_a_byte_order_mark_before_an_xyz_or_json_file(tmp_path: Path) -> None:
    (tmp_path / "one.xyz").write_text("\ufeff1\n\nHe 0 0 0\n", encoding="utf-8")
    assert read(tmp_path / "one.xyz").reasons == (None,)
    (tmp_path / "one.json").write_text("\ufeff" + json.dumps(SILICON.as_dict()), encoding="utf-8")
    same(read(tmp_path / "one.json"), [SILICON])


def test_an_atom_of_no_element_is_not_left_out(tmp_path: Path) -> None:
    """What would be judged without it is another structure."""
    water = "O 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
    (tmp_path / "some.xyz").write_text(f"3\n\n{water}4\n\n{water}X 2 2 2\n0\n\n")
    found = read(tmp_path / "some.xyz")
    assert found.structures.sizes.tolist() == [3, 0, 0]
    assert found.reasons == (None, "xyz: it has an atom of no element, e.g. X, * or R", "xyz: it has no atoms")
    path = own_molecules.write_sdf(tmp_path / "some.sdf", ("aspirin", "caffeine"))
    path.write_text(re.sub(r"(?m)^(.{30} )[CO] ( .*)$", r"\1R#\2", path.read_text(), count=1))
    found = read(path)
    assert found.structures.sizes.tolist() == [0, 24]
    assert found.reasons[0] is not None
    assert found.reasons[0].startswith("sdf: it has an atom of no element")
    crystal = ROCK_SALT.to_ase_atoms()
    crystal.symbols[0] = "X"
    ase.io.write(tmp_path / "some.extxyz", [crystal, ROCK_SALT.to_ase_atoms()])
    assert read(tmp_path / "some.extxyz").structures.sizes.tolist() == [0, 8]


def test_charges_and_missing_hydrogens_are_named(tmp_path: Path) -> None:
    """Nothing is added, and all are judged as neutral."""
    ammonium = Chem.AddHs(Chem.MolFromSmiles("[NH4+]"))
    Chem.rdDistGeom.EmbedMolecule(ammonium, randomSeed=1)
    bare = Chem.RemoveHs(own_molecules.conformers()["aspirin"])
    loose = Chem.RWMol(bare)  # as `atomrl sample` writes an invalid molecule: no bonds, which imply nothing
    for bond in list(bare.GetBonds()):
        loose.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    with Chem.SDWriter(str(tmp_path / "some.sdf")) as writer:
        for mol in (ammonium, bare, loose):
            writer.write(mol)
    assert read(tmp_path / "some.sdf").report() == (
        "1 of 3 carry a charge, and are taken as neutral: some.sdf entry 1; 1 of 3 lack hydrogens that their bonds "
        "imply, and are taken without: some.sdf entry 2 (aspirin)"
    )
    hydroxide = Molecule(["O", "H"], [[0, 0, 0], [0.96, 0, 0]], charge=-1)
    (tmp_path / "one.json").write_text(json.dumps(hydroxide.as_dict()))
    assert read(tmp_path / "one.json").report() == "1 of 1 carry a charge, and are taken as neutral: one.json entry 1"


def test_sites_that_count_as_all_atoms_are_named(tmp_path: Path) -> None:
    path = tmp_path / "two.cif"
    text = SILICON.to(fmt="cif")
    bare = "\n".join(line for line in text.split("\n") if not re.search(r"^ *_symmetry|x, y, z", line))
    path.write_text(text + bare.replace("data_Si", "data_bare").replace("loop_\nloop_", "loop_"))
    found = read(path)
    same(found, [SILICON, SILICON])
    assert found.report() == (
        "1 of 2 do not declare a symmetry, so their sites count as all atoms (P 1): two.cif block 2 (bare)"
    )


def test_extended_xyz_of_crystals(tmp_path: Path) -> None:
    path = tmp_path / "some.extxyz"
    ase.io.write(path, [structure.to_ase_atoms() for structure in (ROCK_SALT, PEROVSKITE)])
    same(read(path), [ROCK_SALT, PEROVSKITE])


@pytest.mark.parametrize(
    ("held", "names"),
    [
        ([ROCK_SALT.as_dict(), SILICON.as_dict()], ["1", "2"]),
        ({"mp-1": ROCK_SALT.as_dict(), "mp-2": SILICON.as_dict()}, ["mp-1", "mp-2"]),
        (
            [ComputedStructureEntry(one, -1.0, entry_id=f"mp-{len(one)}").as_dict() for one in (ROCK_SALT, SILICON)],
            ["1 (mp-8)", "2 (mp-2)"],
        ),
    ],
)
@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_json_of_pymatgen(held: object, names: list[str], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"some.{ending}"
    with gzip.open(path, "wt") if ending == "json.gz" else path.open("w") as file:
        file.write(json.dumps(held, default=lambda value: value.tolist()))
    found = read(path)
    same(found, [ROCK_SALT, SILICON])
    assert found.where == tuple(f"some.{ending} entry {name}" for name in names)


def test_one_structure_and_one_molecule_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(ROCK_SALT.as_dict()))
    same(read(path), [ROCK_SALT])
    water = Molecule(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    path.write_text(json.dumps(water.as_dict()))
    found = read(path)
    assert found.structures.cell is None
    assert found.structures.numbers.tolist() == [[8, 1, 1]]
    assert np.allclose(found.structures.positions[0], water.cart_coords)


def site(species: object, **more: object) -> dict[str, object]:
    return {"species": species, "abc": [0, 0, 0], **more}


LATTICE = {"matrix": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]}
GOOD = {"lattice": LATTICE, "sites": [site([{"element": "Na", "occu": 1}])]}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (3, "it holds no list of sites"),
        ({"structure": None, "energy": 1}, "it holds no list of sites"),
        ({"lattice": LATTICE, "sites": []}, "it holds no list of sites"),
        ({"lattice": LATTICE, "sites": [site([{"element": "Na", "occu": 0.5}])]}, "not held by one atom: Na 0.5"),
        (
            {"lattice": LATTICE, "sites": [site([{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}])]},
            "site 1 is not held by one atom: Na 0.5, K 0.5",
        ),
        ({"lattice": LATTICE, "sites": [site([{"element": "Xx", "occu": 1}])]}, "site 1: 'Xx' is no element"),
        ({"lattice": LATTICE, "sites": [7]}, "site 1 names no species"),
        ({**GOOD, "lattice": {"matrix": [[3, 0], [0, 3]]}}, r"the lattice's matrix: numbers \(2, 2\), not \(3, 3\)"),
        ({**GOOD, "lattice": {**LATTICE, "pbc": [True, True, False]}}, "is not periodic in all directions"),
        ({**GOOD, "sites": [{"species": [{"element": "Na"}], "abc": "x"}]}, "abc of its sites: "),
    ],
)
def test_what_is_no_structure_in_json(bad: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps([GOOD, bad]))
    found = read(path)
    assert found.reasons[0] is None
    assert found.structures.sizes.tolist() == [1, 0]
    with pytest.raises(AssertionError, match=f"json: .*{said}"):
        raise AssertionError(found.reasons[1])


def test_json_runs_no_code(tmp_path: Path) -> None:
    """pymatgen's own reader imports the module that a property names."""
    module = tmp_path / "harmful.py"
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Harm: pass\n")
    structure = ROCK_SALT.as_dict()
    structure["sites"][0]["properties"] = {"harm": {"@module": "harmful", "@class": "Harm"}}
    path = tmp_path / "some.json"
    path.write_text(json.dumps([structure]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        same(read(path), [ROCK_SALT])
    assert not (tmp_path / "ran").exists()


def test_molecules(tmp_path: Path) -> None:
    names = ("aspirin", "caffeine")
    for path in (
        own_molecules.write_sdf(tmp_path / "a.sdf", names),
        own_molecules.write_extxyz(tmp_path / "a.xyz", names),
    ):
        found = read(path)
        assert found.reasons == (None, None)
        assert found.structures.cell is None
        assert found.structures.sizes.tolist() == [21, 24]


def test_a_structure_of_another_domain_counts_as_failed(tmp_path: Path) -> None:
    path = tmp_path / "mixed.extxyz"
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    ase.io.write(path, [ROCK_SALT.to_ase_atoms(), water])
    crystals, molecules = read(path), read(path, "molecules")
    assert crystals.reasons == (None, "domain: it has no cell, so it is not a crystal")
    assert molecules.reasons == ("domain: it is periodic, so not a molecule", None)
    assert crystals.structures.sizes.tolist() == [8, 0]
    assert molecules.structures.sizes.tolist() == [0, 3]


def test_a_folder(tmp_path: Path) -> None:
    """A file that cannot be read at all, or is empty, counts as one structure that failed."""
    (tmp_path / "below").mkdir()
    ROCK_SALT.to(filename=str(tmp_path / "below" / "a.cif"))
    ROCK_SALT.to(filename=str(tmp_path / "a.cif"))
    (tmp_path / "b.cif").write_text("")
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "notes.txt").write_text("no structure")
    found = read(tmp_path)
    places = ("a.cif block 1 (NaCl)", "b.cif", "below/a.cif block 1 (NaCl)", "c.json")
    assert found.where == places
    assert found.reasons[0] is found.reasons[2] is None
    assert found.reasons[1] == "file: it holds no structure"
    assert found.reasons[3] is not None
    assert "c.json cannot be read as JSON" in found.reasons[3]


def test_what_is_not_read_of_a_folder_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Copies that Jupyter and macOS keep are hidden, and no data."""
    for name in ("a.cif", "b.cif.gz", "POSCAR", "._a.cif", ".ipynb_checkpoints/a-checkpoint.cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        ROCK_SALT.to(filename=str(tmp_path / name), fmt="cif")
    assert read(tmp_path).where == ("a.cif block 1 (NaCl)",)
    assert "2 of 3 files have other endings and are not read: POSCAR, b.cif.gz" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.cif", "", "holds no structure: give a file with one or more"),
        ("a.sdf", "", "holds no structure"),
        ("a.json", "[]", "holds no structure"),
        ("a.json", "[", "cannot be read as JSON"),
        ("a.json.gz", "[]", "cannot be read as JSON"),
        (
            "a.xyz",
            "0\n\n",
            "none of its 1 structures can be read; the first: a.xyz entry 1 .line 1.: xyz: it has no atoms",
        ),
        ("a.cif", BROKEN_CIF, "none of its 1 structures can be read; the first: a.cif block 1 .bad.: cif: "),
        ("a.poscar", "", "the ending must be one of .cif, "),
        ("absent.cif", None, "absent.cif cannot be read: No such file"),
        ("folder", None, "the folder holds no .cif, "),
    ],
)
def test_bad_files(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    if name == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_the_other_domain_is_refused(tmp_path: Path) -> None:
    path = own_molecules.write_sdf(tmp_path / "a.sdf", ("aspirin",))
    with pytest.raises(UserError, match=r"a\.sdf holds molecules, and no crystals: give files of one kind"):
        read(path, "crystals")
    CAESIUM_CHLORIDE.to(filename=str(tmp_path / "a.cif"))
    with pytest.raises(UserError, match=r"a\.cif holds crystals, and no molecules"):
        read(tmp_path / "a.cif", "molecules")
