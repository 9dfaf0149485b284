"""`atomrl evaluate --structures`: files are judged as samples are, and what cannot be read counts as failed."""

import json
from pathlib import Path

import ase.io
import numpy as np
import own_molecules
import pyarrow.parquet as pq
import pytest
import torch
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT
from rdkit import Chem
from refusals import refused

from atomrl.cli import main
from atomrl.data.prototype_set import ASSETS
from atomrl.evaluation.evaluate import in_file_name
from atomrl.library.judge_structures import _headings, evaluate_structures
from atomrl.structures.crystals import from_pymatgen
from atomrl.structures.molecules import Geometry
from atomrl.structures.padding import join
from atomrl.util.errors import UserError

ONE = "reward.workers=1"


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rock salt twice, a crystal whose atoms overlap, caesium chloride, and a CIF that cannot be read; judged."""
    folder = tmp_path_factory.mktemp("crystals")
    overlapping = CAESIUM_CHLORIDE.copy()
    overlapping.translate_sites([1], [0.5, 0.5, 0.5])
    (folder / "files").mkdir()
    for number, structure in enumerate((ROCK_SALT, ROCK_SALT, overlapping, CAESIUM_CHLORIDE)):
        structure.to(filename=str(folder / "files" / f"{number}.cif"))
    (folder / "files" / "4.cif").write_text("data_x\n_cell_length_a 3\n")
    ase.io.write(folder / "two.extxyz", [one.to_ase_atoms() for one in (PEROVSKITE, CAESIUM_CHLORIDE)])
    files = [str(folder / "files"), str(folder / "two.extxyz")]
    main(["evaluate", "--structures", *files, ONE, "--output", str(folder / "table")])
    return folder / "table"


def test_every_structure_has_a_row(crystals: Path) -> None:
    rows = pq.read_table(crystals / "evaluation.parquet").to_pylist()
    assert [(row["column"], row["sample_id"]) for row in rows] == [
        *(("files", f"{row:05d}") for row in range(5)),
        *(("two", f"{row:05d}") for row in range(2)),
    ]
    assert [row["formula"] for row in rows] == ["NaCl", "NaCl", "CsCl", "CsCl", "", "SrTiO3", "CsCl"]
    assert [row["unique"] for row in rows[:5]] == [True, False, False, True, False]
    assert [row["geometry_reason"] for row in rows[:5]] == [None, None, "overlap", None, "empty"]
    assert rows[4]["reading_reason"].startswith("cif: 0 of its blocks list fractional coordinates")
    assert [row["source"] for row in rows[3:6]] == [
        "3.cif block 1 (CsCl)",
        "4.cif block 1 (x)",
        "two.extxyz entry 1 (line 1)",
    ]
    energies = [row["e_above_hull"] for row in rows]
    assert energies[2] is energies[4] is None
    assert max(abs(energies[0]), abs(energies[5])) < 0.01  # known stable phases, by the shipped hull
    assert abs(energies[3] - energies[6]) < 1e-3  # the same crystal out of a CIF and out of extended XYZ
    units = {field.name: field.metadata.get(b"unit") for field in pq.read_schema(crystals / "evaluation.parquet")}
    assert units["e_above_hull"] == units["energy_per_atom"] == b"eV/atom"


def test_shares_count_what_cannot_be_read(crystals: Path) -> None:
    table = json.loads((crystals / "evaluation.json").read_text())
    rows = pq.read_table(crystals / "evaluation.parquet").to_pylist()
    for name in ("unique", "novel", "metastable", "msun"):
        estimate = table["metrics"][name]["columns"]["files"]
        assert estimate["denominator"] == 5
        assert estimate["value"] == pytest.approx(np.mean([row[name] for row in rows[:5]]))
    column = table["columns"]["files"]
    failures = {source: reasons for source, reasons in column["failures"].items() if reasons}
    assert failures == {"reading": {"cif": 1}, "geometry": {"empty": 1, "overlap": 1}}
    assert (column["samples"], column["drawn"], column["seeds"], column["time_step"]) == (5, 0, [], None)
    assert table["profile"] == "mp20-2025"
    text = (crystals / "evaluation.md").read_text()
    assert "files: 5 taken from " in text
    assert "failures: reading cif 1, geometry " in text


def test_the_structures_stand_beside_the_table(crystals: Path) -> None:
    written = ase.io.read(crystals / "files.extxyz", index=":4")
    assert [atoms.info["sample_id"] for atoms in written] == [f"{row:05d}" for row in range(4)]
    assert not (crystals / "unfinished").exists()


def molecules(path: Path) -> Path:
    own_molecules.write_extxyz(path, ("metformin", "isoniazid"))
    with path.open("a") as file:
        file.write("3\nbroken\nO 0 0 0\nH 1 0\n")
    return path


def test_molecules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, sdf = molecules(tmp_path / "some.xyz"), own_molecules.write_sdf(tmp_path / "some.sdf", ("metformin",))
    main(["evaluate", "--structures", str(path), str(sdf), ONE, "--output", str(tmp_path / "table")])
    assert "1 of 3 cannot be read and count as failed: some.xyz entry 3" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "table" / "evaluation.parquet").to_pylist()
    first, second = dict.fromkeys(row["column"] for row in rows)
    assert first.endswith("some_xyz")
    assert second.endswith("some_sdf")  # both are called some
    assert [row["valid"] for row in rows] == [True, True, False, True]
    assert [row["atoms"] for row in rows] == [20, 17, 0, 20]
    assert [row["heavy_atoms"] for row in rows] == [9, 10, 0, 9]
    assert [row["rings"] for row in rows] == [0, 1, None, 0]
    assert all(isinstance(rows[row]["rings"], int) for row in (0, 1, 3))
    assert rows[0]["smiles"] == rows[3]["smiles"] == Chem.CanonSmiles(own_molecules.DRUGS["metformin"])
    assert rows[0]["smiles_explicit_h"].count("[H]") == 11
    assert rows[0]["energy"] == pytest.approx(rows[3]["energy"], abs=1e-3)
    assert rows[2]["energy"] is None
    assert rows[2]["reading_reason"].startswith("xyz: the file ends within its 3 atoms")
    table = json.loads((tmp_path / "table" / "evaluation.json").read_text())
    assert table["metrics"]["validity"]["columns"][first] == pytest.approx(
        table["metrics"]["validity"]["columns"][first] | {"value": 2 / 3, "denominator": 3}
    )
    assert table["metrics"]["force_field_failures"]["columns"][first]["value"] == pytest.approx(1 / 3)
    for name, values in (
        ("hydrogen_share", (18 / 37, 11 / 20)),
        ("heavy_atoms_mean", (9.5, 9)),
        ("without_ring", (0.5, 1)),
    ):
        found = [table["metrics"][name]["columns"][heading]["value"] for heading in (first, second)]
        assert found == pytest.approx(values)
    text = (tmp_path / "table" / "evaluation.md").read_text()
    assert "| share of H among the atoms |  | 48.6 [" in text
    assert "| valid molecules without a ring |  | 50.0 [" in text


def test_columns_with_fewer_structures_than_are_relaxed(tmp_path: Path) -> None:
    """One of 3, one of 2: they stand in one table of what was relaxed, whatever could be read and evaluated."""
    water = "3\n\nO 0 0 0\nH 0 0 0\nH 1 0 0\n"
    (tmp_path / "mine.xyz").write_text(water + water + "3\nbroken\nO 0 0 0\nH 1 0\n")
    (tmp_path / "theirs.xyz").write_text(water * 2)
    cell = CAESIUM_CHLORIDE.copy()
    cell.translate_sites([1], [0.5, 0.5, 0.5])
    crystals = {name: from_pymatgen([cell] * count) for name, count in (("mine", 3), ("theirs", 2))}
    molecules = {name: tmp_path / f"{name}.xyz" for name in crystals}
    for number, sources in enumerate((molecules, crystals)):
        words = [ONE, "evaluation.relaxed=3"]
        report = evaluate_structures(sources, tmp_path / f"table_{number}", overrides=words)
        table = report.further["relaxed"]
        assert [len(column.metrics.samples) for column in table.columns] == [3, 2]
        assert table.columns[0].metrics.conditions["geometry"].endswith("; at most 3 of the main table's samples")


def test_every_column_has_files_of_its_own(tmp_path: Path) -> None:
    """Also where names, and whole paths, differ in what stands for `_` in a heading."""
    for name in ("a-b/some.xyz", "a_b/some.xyz", "c/my own.xyz", "c/my_own.xyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        own_molecules.write_extxyz(tmp_path / name, ("metformin",))
    files = [tmp_path / name for name in ("a-b/some.xyz", "a_b/some.xyz", "c/my own.xyz", "c/my_own.xyz")]
    headings = _headings(files)
    assert [*headings.values()] == files
    assert len({in_file_name(heading) for heading in headings}) == 4
    for mine, known in (("known set", 1), ("a b", 0)):
        with pytest.raises(UserError, match=f"the columns {mine}, .* would be written into the same files: name them"):
            evaluate_structures({mine: files[0], "a_b": files[1]}, tmp_path / "table", known=known)
    assert in_file_name("../PBE hull") == ".._PBE_hull"


def test_what_is_judged_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files of a column are named as the file that it holds, and may lie in the same folder."""
    (tmp_path / "mine").mkdir()
    path = own_molecules.write_extxyz(tmp_path / "mine" / "mine.extxyz", ("metformin",))
    before = path.read_bytes()
    for source in (path, path.parent):
        words = ["evaluate", "--structures", str(source), ONE, "--output", str(path.parent)]
        assert refused(capsys, *words) == (
            f"error: --output {path.parent}: {path}, which is judged, would be written over; give another folder"
        )
    assert path.read_bytes() == before


def test_an_element_that_the_bond_table_lacks_is_refused_at_once(tmp_path: Path, capsys) -> None:
    """Before any energy of another column is computed; the message says by what such molecules can be judged."""
    own_molecules.write_extxyz(tmp_path / "drugs.xyz", ("metformin",))
    (tmp_path / "some.xyz").write_text("3\n\nSe 0 0 0\nH 1.47 0 0\nH 0 1.47 0\n")
    files = [str(tmp_path / name) for name in ("drugs.xyz", "some.xyz")]
    assert refused(capsys, "evaluate", "--structures", *files, ONE, "--output", str(tmp_path / "table")) == (
        "error: the bond table has no valence for Se, which some molecules contain: leave these out, or set "
        "evaluation.profile=rdkit-xyz2mol, with which RDKit finds the bonds; they are in the column some"
    )
    assert not (tmp_path / "table" / "unfinished").exists()


def test_a_known_set_that_is_not_there_is_missed_at_once(tmp_path: Path, monkeypatch, capsys) -> None:
    """Before anything is sampled or judged."""

    def absent(*_) -> None:
        raise UserError("QM9 needs the package qm9pack")

    monkeypatch.setattr("atomrl.domains.molecule_panel.training_molecules", absent)
    path = own_molecules.write_extxyz(tmp_path / "drugs.xyz", ("metformin",))
    for words in (["--structures", str(path)], ["-n", "1", "--time-step", "2"]):
        table = tmp_path / f"table_{len(words)}"
        assert "qm9pack" in refused(capsys, "evaluate", *words, "--known", "1", ONE, "--output", str(table))
        assert not (table / "unfinished").exists()


def test_structures_in_memory_are_judged_alike(tmp_path: Path) -> None:
    path = own_molecules.write_extxyz(tmp_path / "some.extxyz", ("metformin", "isoniazid"))
    geometries = [Geometry(atoms.numbers, atoms.positions) for atoms in ase.io.read(path, index=":")]
    torch.set_num_threads(2)
    words = [ONE, "threads=1"]
    report = evaluate_structures({"file": path, "mine": join(geometries)}, tmp_path / "table", overrides=words)
    assert torch.get_num_threads() == 1
    assert report.main.columns[1].metrics.summary == report.main.columns[0].metrics.summary
    rows = pq.read_table(tmp_path / "table" / "evaluation.parquet").to_pylist()
    assert [row.pop("source") for row in rows[2:]] == ["row 0", "row 1"]
    for one, other in zip(rows[:2], rows[2:], strict=True):
        assert one | {"column": "mine"} == other | {"source": one["source"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--structures", "{empty}"], "holds no structure: give a file with one or more"),
        (["--structures", "{sdf}", "--domain", "crystals"], "holds molecules, and no crystals: give files of one kind"),
        (["--structures", "{sdf}", "{cif}"], "holds crystals, and no molecules"),
        (["--structures", "{cif}", "reward.hull={hull}"], "the hull was computed with model_id 'sevennet-0"),
        (
            ["--structures", "{cif}", "reward.force_field=sevennet"],
            "for a table by another one set evaluation.second_judge",
        ),
        (
            ["--structures", "{sdf}", "reward.type=ani"],
            "judged by the evaluation's own force field, whatever reward.type",
        ),
        (["--structures", "{cif}", "--base", "edm_qm9_small"], "--base edm_qm9_small is not a model of crystals"),
        (["--structures", "{sdf}", "--base", "edm_qm9_alpha"], "edm_qm9_alpha measures the diversity of crystals"),
        (["--structures", "{sdf}", "evaluation.regressor=qm9_alpha_regressor"], "files were asked for nothing"),
        (
            ["--structures", "{cif}", "--seed", "3"],
            "--seed 3 only chooses the structures of --known here: give --known too",
        ),
        (["--structures", "{cif}", "--trust-code"], "--trust-code is about samples of a model"),
        (["--trust-code"], "--trust-code is for the code that a run names: give the run with --trained"),
        (["--structures", "{cif}", "--keep", "{cif}"], "cannot create --keep"),
        (["--structures", "{cif}", "--trained", "run"], "--trained is about samples of a model"),
        (["--structures", "{cif}", "-n", "0"], "-n is about samples of a model, and --structures judges files"),
        (["--structures", "{cif}", "model.eta=0"], "model.eta=0: an evaluation of files takes no model.eta"),
        (["--structures", "{cif}", "{cif}"], "each once"),
        (["--structures", "{cif}", "--known", "-1"], "--known -1: must be at least 1"),
        (["--structures", "absent.cif"], "absent.cif cannot be read: No such file"),
        (["--structures", "my.poscar"], "the ending must be one of .cif"),
        (["--known", "-1"], "--known -1: must be at least 1"),
        (["--structures", "{cif}", "--output", "{done}"], "done holds an evaluation: give another folder"),
        (["--output", "{done}"], "done holds an evaluation: give another folder"),
        (["--domain", "crystals"], "--domain crystals says what --structures holds: give these too"),
        (["-n", "0"], "-n 0: must be at least 1"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CAESIUM_CHLORIDE.to(filename=str(tmp_path / "a.cif"))
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "evaluation.md").touch()
    names = {
        "empty": tmp_path / "empty.cif",
        "done": tmp_path / "done",
        "cif": tmp_path / "a.cif",
        "sdf": own_molecules.write_sdf(tmp_path / "a.sdf", ("metformin",)),
        "hull": ASSETS / "hull-sevennet-0.json",
    }
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--output", str(tmp_path / "table"), *(word.format(**names) for word in words)])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "table" / "evaluation.md").exists()


def test_mistakes_from_python(tmp_path: Path) -> None:
    for sources, said in (({}, "no structures to judge"), ([], "give one or more files or folders, each once")):
        with pytest.raises(UserError, match=said):
            evaluate_structures(sources, tmp_path / "table")
    crystals = from_pymatgen([ROCK_SALT])
    for wrong, kind in ((crystals, "Structures"), ([ROCK_SALT], "Structure"), ({"mine": [ROCK_SALT]}, "list")):
        with pytest.raises(UserError, match=f"evaluate_structures got {kind}: give a file or a folder"):
            evaluate_structures(wrong, tmp_path / "table")
    with pytest.raises(UserError, match="mine holds 1 crystals: give one or more molecules"):
        evaluate_structures({"mine": from_pymatgen([ROCK_SALT])}, tmp_path / "table", domain="molecules")
    with pytest.raises(UserError, match="domain liquids: must be crystals or molecules"):
        evaluate_structures([tmp_path / "a.cif"], tmp_path / "table", domain="liquids")
    for one in ("some/absent.cif", tmp_path / "absent.cif"):  # a single file needs no list
        with pytest.raises(UserError, match=r"absent\.cif cannot be read"):
            evaluate_structures(one, tmp_path / "table", keep=str(tmp_path / "kept"))
