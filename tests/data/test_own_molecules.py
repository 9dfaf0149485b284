"""Molecules of the user's own: each format gives the same set, what is broken is named, left out and counted."""

from pathlib import Path

import numpy as np
import own_molecules
import pytest
from rdkit import Chem

from atomrl.data.own_molecules import read_own, split_own
from atomrl.util.errors import UserError


@pytest.mark.parametrize("name", own_molecules.WRITERS)
def test_every_format_gives_the_same_molecules(name: str, tmp_path: Path) -> None:
    own = read_own(own_molecules.WRITERS[name](tmp_path / name))
    assert own.elements == ("H", "C", "N", "O", "F", "S", "Cl")
    assert own.left_out == ()
    assert list(own.molecules.ids) == list(range(1, 13))
    numbers, positions = own_molecules.padded()
    assert np.array_equal(own.molecules.numbers, numbers[numbers > 0])
    assert np.abs(own.molecules.positions - positions[numbers > 0]).max() < 1e-4  # an SDF has four decimals


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    own_molecules.write_sdf(tmp_path / "b.sdf", ["aspirin"])
    (tmp_path / "a").mkdir()
    own_molecules.write_extxyz(tmp_path / "a" / "one.xyz", ["caffeine"])
    (tmp_path / "notes.txt").write_text("nothing")
    assert read_own(tmp_path).molecules.sizes.tolist() == [24, 21]


def test_one_broken_entry_among_a_thousand(tmp_path: Path) -> None:
    path = tmp_path / "many.sdf"
    entries = own_molecules.write_sdf(path).read_text().split("$$$$\n")[:-1]
    many = [entries[row % len(entries)] for row in range(1000)]
    many[500] = many[500].replace(" C ", " Cx", 1)
    path.write_text("".join(f"{entry}$$$$\n" for entry in many))
    own = read_own(path)
    assert len(own.molecules) == 999
    assert own.left_out == (("many.sdf entry 501 (lidocaine)", own.left_out[0][1]),)
    assert "999 of 1,000 molecules read" in own.report()
    assert "left out 1: many.sdf entry 501 (lidocaine): " in own.report()
    assert "\n" not in own.report()


def broken_sdf(change) -> str:
    """Aspirin, what a change makes of paracetamol, and caffeine."""
    blocks = [Chem.MolToMolBlock(own_molecules.conformers()[name]) for name in ("aspirin", "paracetamol", "caffeine")]
    blocks[1] = change(blocks[1])
    return "".join(f"{block}$$$$\n" for block in blocks)


def flat(block: str) -> str:
    mol = Chem.RemoveHs(Chem.MolFromMolBlock(block))
    Chem.rdDepictor.Compute2DCoords(mol)
    return Chem.MolToMolBlock(mol)


def moved(block: str) -> str:
    """The second atom stands where the first does."""
    lines = block.splitlines(keepends=True)
    lines[5] = lines[4][:30] + lines[5][30:]
    return "".join(lines)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda block: block.replace(" 20 20", " xx 20"), "RDKit cannot read it"),
        (lambda block: f"{block[:300]}\n", "RDKit cannot read it"),
        (lambda block: "nonsense\n", "RDKit cannot read it"),
        (lambda block: "", "RDKit cannot read it"),
        (flat, "it has no 3-D coordinates"),
        (moved, "two atoms are closer than 0.4 Å"),
        (lambda block: block.replace(" C ", " R ", 1), "an atomic number is none of an element"),
    ],
)
def test_broken_entries_of_an_sdf(change, reason: str, tmp_path: Path) -> None:
    (tmp_path / "drugs.sdf").write_text(broken_sdf(change))
    own = read_own(tmp_path / "drugs.sdf")
    assert [why for _, why in own.left_out] == [reason]
    assert own.left_out[0][0].startswith("drugs.sdf entry 2")
    assert own.molecules.ids.tolist() == [1, 3]


def test_two_molecules_in_one_entry_are_left_out_and_named(tmp_path: Path) -> None:
    """RDKit reads the first of them, and the other would be lost without a word."""
    aspirin, caffeine = (Chem.MolToMolBlock(own_molecules.conformers()[name]) for name in ("aspirin", "caffeine"))
    holds_another = f"{caffeine}>  <a molecule>\nM  END\n\n"
    after_a_property = f"{aspirin}>  <a>\n1\n\n{caffeine}"
    parts = (aspirin + caffeine, holds_another, after_a_property)
    (tmp_path / "drugs.sdf").write_text("".join(f"{part}$$$$\n" for part in parts))
    own = read_own(tmp_path / "drugs.sdf")
    why = "it holds two molecules: $$$$ between them is missing"
    assert own.left_out == (("drugs.sdf entry 1 (aspirin)", why), ("drugs.sdf entry 3 (aspirin)", why))
    assert own.molecules.ids.tolist() == [2]


def test_an_sdf_that_ends_within_its_last_entry(tmp_path: Path) -> None:
    path = own_molecules.write_sdf(tmp_path / "drugs.sdf")
    path.write_text(path.read_text()[:-2000])
    own = read_own(path)
    assert [where for where, _ in own.left_out] == ["drugs.sdf entry 12 (captopril)"]


def test_missing_hydrogens_and_charges_are_remarked(tmp_path: Path) -> None:
    salt = Chem.AddHs(Chem.MolFromSmiles("CC(=O)[O-]"))
    Chem.rdDistGeom.EmbedMolecule(salt, randomSeed=1)
    bare = Chem.RemoveHs(own_molecules.conformers()["aspirin"])
    with Chem.SDWriter(str(tmp_path / "drugs.sdf")) as writer:
        for mol in (salt, bare, own_molecules.conformers()["caffeine"]):
            writer.write(mol)
    report = read_own(tmp_path / "drugs.sdf").report()
    assert "1 lack hydrogens that their bonds imply" in report
    assert "1 carry a charge" in report
    said = ("charge=-1", "total_charge=2", "charge=0", "charge=none")
    (tmp_path / "ions.extxyz").write_text("".join(FRAME.replace("\n\n", f"\n{words}\n") for words in said))
    assert "; 2 carry a charge" in read_own(tmp_path / "ions.extxyz").report()


FRAME = "3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("4\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n", "ASE cannot read it"),
        ("3\n\nO 0 0 0\nH 0.96 x 0\nH -0.24 0.93 0\n", "ASE cannot read it"),
        ("3\n\nO 0 0 0\nQq 0.96 0 0\nH -0.24 0.93 0\n", "'Qq' is not the symbol of an element that ASE knows"),
        ("3\n\n8 0 0 0\n1 0.96 0 0\n1 -0.24 0.93 0\n", "'8' is not the symbol of an element that ASE knows"),
        ("3\n\nO 0 0 0\nH 0.96 0 nan\nH -0.24 0.93 0\n", "a coordinate is not finite"),
        ("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 90\n", "an atom is more than 5 Å"),
        ('3\nLattice="9 0 0 0 9 0 0 0 9"\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n', "it is periodic"),
        ("0\n\n", "it has no atoms"),
        ("three\n\nO 0 0 0\n", "it does not begin with a number of atoms"),
    ],
)
def test_broken_frames_cost_themselves_only(broken: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "waters.xyz").write_text(f"{FRAME}{broken}{FRAME}{FRAME}")
    own = read_own(tmp_path / "waters.xyz")
    assert [where for where, _ in own.left_out] == ["waters.xyz entry 2 (line 6)"]
    assert own.left_out[0][1].startswith(reason)
    assert own.molecules.ids.tolist() == [1, 3, 4]


def test_a_frame_that_the_file_ends_in(tmp_path: Path) -> None:
    (tmp_path / "waters.extxyz").write_text(FRAME + FRAME[:20])
    assert read_own(tmp_path / "waters.extxyz").left_out == (
        ("waters.extxyz entry 2 (line 6)", "the file ends within its 3 atoms"),
    )


def test_conformers_whose_rows_are_scattered_are_refused(tmp_path: Path) -> None:
    """Each stretch of rows would be a molecule of its own."""
    path = own_molecules.write_geom(tmp_path / "geom.npy")
    rows = np.load(path)
    np.save(path, rows[np.argsort(np.arange(len(rows)) % 3, kind="stable")])
    with pytest.raises(UserError, match=r"the rows of conformer 0 do not stand together: sort the rows by the column"):
        read_own(path)


def test_broken_conformers_of_geom(tmp_path: Path) -> None:
    rows = np.load(own_molecules.write_geom(tmp_path / "geom.npy"))
    first, second, third = (np.flatnonzero(rows[:, 0] == number)[0] for number in range(3))
    rows[first, 2], rows[second, 1] = np.nan, 6.5
    np.save(tmp_path / "geom.npy", rows)
    own = read_own(tmp_path / "geom.npy")
    assert own.left_out == (
        ("geom.npy conformer 0 (row 0)", "a coordinate is not finite"),
        (f"geom.npy conformer 1 (row {second})", "an atomic number is none of an element"),
    )
    assert own.molecules.ids.tolist() == list(range(3, 13))
    assert third


def truncated(path: Path) -> None:
    own_molecules.write_geom(path)
    path.write_bytes(path.read_bytes()[:-100])


def truncated_npz(path: Path) -> None:
    own_molecules.write_npz(path)
    path.write_bytes(path.read_bytes()[:-100])


def named_npz(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros((2, 5)))
    path.with_suffix(".npy").rename(path)


def named_npy(path: Path) -> None:
    own_molecules.write_npz(path.with_suffix(".npz")).rename(path)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("geom.npy", truncated, "is it truncated?"),
        ("geom.npy", lambda path: path.write_bytes(b""), "is it truncated?"),
        ("geom.npy", lambda path: np.save(path, np.array([{}], dtype=object)), "holds Python objects"),
        ("geom.npy", lambda path: np.save(path, np.zeros(7)), "give GEOM-Drugs' conformers"),
        ("geom.npy", lambda path: np.save(path, np.zeros((0, 5))), "give GEOM-Drugs' conformers"),
        ("my.npz", truncated_npz, "is it truncated?"),
        ("my.npz", lambda path: np.savez(path, numbers=np.ones((2, 3), dtype=int)), "lacks positions"),
        ("my.npz", lambda path: np.savez(path, numbers=np.ones((2, 3)), positions=np.ones((2, 3, 3))), "do not fit"),
        ("my.npz", lambda path: np.savez(path, numbers=[[1, 2]], positions=np.ones((1, 3, 3))), "do not fit"),
        ("my.npz", lambda path: np.savez(path, numbers=np.array([["H", None]]), positions=[1.0]), "Python objects"),
        ("my.npz", named_npz, "holds one array, and a .npz file holds numbers and positions"),
        ("my.npy", named_npy, "holds several arrays (numbers, positions): give it the ending .npz"),
        ("my.sdf", lambda path: path.write_text(""), "none of its 0 entries is a molecule"),
        ("my.sdf", lambda path: path.write_text("a\nb\n"), "none of its 1 entries is a molecule; the first: my.sdf"),
        ("my.sdf", lambda path: None, "cannot be read: No such file"),
        ("my.npy", lambda path: None, "no such file"),
        ("my.pdb", lambda path: path.write_text(""), "the ending must be one of .sdf, .mol"),
        ("folder", lambda path: path.mkdir(), "the folder holds no .sdf"),
    ],
)
def test_files_that_cannot_be_read(name: str, write, words: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with pytest.raises(UserError, match="data=") as caught:
        read_own(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_split_is_a_function_of_the_seed(tmp_path: Path) -> None:
    molecules = read_own(own_molecules.write_sdf(tmp_path / "drugs.sdf")).molecules
    parts = split_own(molecules, 0.25, seed=0)
    assert [len(part) for part in parts.values()] == [9, 3]
    assert sorted(np.concatenate([part.ids for part in parts.values()])) == list(range(1, 13))
    assert np.array_equal(split_own(molecules, 0.25, seed=0)["validation"].ids, parts["validation"].ids)
    assert not np.array_equal(split_own(molecules, 0.25, seed=1)["validation"].ids, parts["validation"].ids)
    assert len(split_own(molecules, 0.001, seed=0)["validation"]) == 1
    assert len(split_own(molecules, 0.0, seed=0)["validation"]) == 0
    with pytest.raises(UserError, match=r"held_out=0\.99 of 12 molecules leaves none"):
        split_own(molecules, 0.99, seed=0)
