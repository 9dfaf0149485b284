"""What a report holds, what it leaves out, and what it refuses."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from report_runs import molecules, write_evaluation, write_log

from atomrl.cli import main
from atomrl.evaluation.sample_table import SampleColumn, at_rows, read_sample_table, write_sample_table
from atomrl.report import report as reporting
from atomrl.report.curves import curves, read_series, thinned
from atomrl.report.page import unpacked
from atomrl.report.report import LARGEST, write_report
from atomrl.report.rounding import rounded
from atomrl.report.sources import find_sources
from atomrl.util.errors import UserError


def shared(folder: Path) -> Path:
    """As a model lies there that somebody shared with its run's configuration."""
    (folder / "model.json").write_text("{}")
    (folder / "model.safetensors").touch()
    (folder / "metrics.jsonl").unlink()
    return folder


def data(path: Path) -> dict:
    return unpacked(path.read_text())


@pytest.fixture(scope="module")
def judged(qm9_test, records_of):
    few = qm9_test[:40]
    return {"base": molecules(few, records_of, 0.08, 4.0), "trained": molecules(few, records_of, 0.02, 1.0)}


@pytest.fixture(scope="module")
def run(judged, tmp_path_factory) -> Path:
    folder = write_log(tmp_path_factory.mktemp("runs") / "mine")
    write_evaluation(folder / "evaluation", judged, {"molecule_stability"}, "atomrl train")
    return folder


@pytest.fixture(scope="module")
def report(run) -> dict:
    return data(write_report([run]).path)


def test_the_command_writes_it_into_the_run_and_says_where(run, capsys, tmp_path, monkeypatch):
    main(["report", str(run)])
    assert capsys.readouterr().out == f"report -> {run / 'report.html'}\n"
    first = (run / "report.html").read_bytes()
    main(["report", str(run / "evaluation" / ".."), "--output", str(tmp_path / "other.html")])
    assert (tmp_path / "other.html").stat().st_size <= LARGEST
    main(["report", str(run)])
    assert (run / "report.html").read_bytes() == first
    other = write_log(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    main(["report", str(run), str(other)])
    assert capsys.readouterr().out.endswith("report -> report.html\n")
    assert [entry["name"] for entry in data(tmp_path / "report.html")["runs"]] == ["mine", "other"]


def test_numbers_of_the_table_are_those_of_the_evaluation(run, report):
    stored = json.loads((run / "evaluation" / "evaluation.json").read_text())
    [table] = report["tables"]
    assert [row["name"] for row in table["rows"]] == list(stored["metrics"])
    assert [row["name"] for row in table["rows"] if row["rewarded"]] == stored["rewarded"] == ["molecule_stability"]
    markdown = (run / "evaluation" / "evaluation.md").read_text()
    for row in table["rows"]:
        for cell, label in zip(row["cells"], ("base", "trained"), strict=True):
            found = stored["metrics"][row["name"]]["columns"][label]
            ends = [None if found[end] in (None, "inf") else found[end] for end in ("low", "value", "high")]
            assert cell["at"] == pytest.approx(ends, rel=1e-4)
            assert f" {cell['value']} {cell['rest']} |" in markdown
        clear = stored["metrics"][row["name"]]["overlaps_first"]["trained"] is False
        assert (row["cells"][1]["verdict"] is not None) is clear
    verdicts = {row["name"]: row["cells"][1]["verdict"] for row in table["rows"]}
    assert verdicts["molecule_stability"] == "better"
    assert table["notes"][1]["text"].startswith("40 samples, T = 50, seed 7, failed: ")
    assert "overlap 1" in table["notes"][1]["text"]


def test_samples_are_those_of_the_table_of_samples_and_of_the_files(run, report):
    rows = pq.read_table(run / "evaluation" / "evaluation.parquet").to_pylist()
    texts = (run / "evaluation" / "trained.sdf").read_text().split("$$$$\n")
    for side, label in zip(report["sides"], ("base", "trained"), strict=True):
        own = [row for row in rows if row["column"] == label]
        shown = side["samples"]
        assert shown["ids"] == [row["sample_id"] for row in own]
        for name, values in shown["values"].items():
            expected = [row[name] for row in own]
            if isinstance(next(value for value in expected if value is not None), float):
                expected = [None if value is None else pytest.approx(value, rel=1e-4) for value in expected]
            assert values == expected, name
    shown = report["sides"][1]["samples"]
    assert shown["texts"] == [f"{text}$$$$\n" for text in texts[:-1]]
    assert set(shown["endings"]) == {"sdf"}
    drawn = [picture is not None for picture in shown["pictures"]]
    assert drawn == [smiles is not None for smiles in shown["values"]["smiles"]]
    assert all(picture.startswith("<?xml") for picture in shown["pictures"] if picture)


def test_what_sdf_and_cif_cannot_hold_is_there_as_xyz(run, crystal_run, tmp_path):
    shutil.copytree(run / "evaluation", tmp_path / "molecules")
    sdf = tmp_path / "molecules" / "trained.sdf"
    entries = sdf.read_text().split("$$$$\n")
    sdf.write_text("$$$$\n".join(entries[1:]))
    shown = data(write_report([tmp_path / "molecules"]).path)["sides"][1]["samples"]
    assert shown["endings"] == ["xyz", *["sdf"] * 39]
    atoms = int(shown["values"]["atoms"][0])
    first = (tmp_path / "molecules" / "trained.extxyz").read_text().splitlines(keepends=True)[: atoms + 2]
    assert shown["texts"][0] == "".join(first)
    shown = data(write_report([crystal_run]).path)["sides"][0]["samples"]
    assert set(shown["endings"]) == {"cif"}
    assert [text.split()[0] for text in shown["texts"]] == [f"data_{name}" for name in shown["ids"]]


def test_curves_are_the_log(run, report):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    by_name = {curve["name"]: curve for curve in report["curves"]}
    assert list(by_name) == ["reward", "rms_force", "grad_norm", "lr"]
    assert [curve["first"] for curve in report["curves"]] == [True, True, True, False]
    [line] = by_name["reward"]["lines"]
    assert line == {"run": 0, "x": list(range(30)), "y": [row["reward"] for row in rows], "each": 1}
    [line] = by_name["rms_force"]["lines"]  # logged every second iteration
    assert line["x"] == list(range(0, 30, 2))


def test_long_logs_are_thinned_by_means():
    series = (np.arange(1001.0), 2 * np.arange(1001.0))
    (iterations, values), each = thinned(series, 600)
    assert each == 2
    assert len(values) == 501
    np.testing.assert_allclose(values[:-1], 2 * np.arange(0.5, 1000, 2))
    assert (iterations[-1], values[-1]) == (1000, 2000)
    many = {f"number_{place}": series for place in range(1000)}
    [first, *_] = curves([many])
    assert len(first["lines"][0]["x"]) <= 250


def test_a_log_that_a_kill_cut_short(tmp_path):
    folder = write_log(tmp_path / "run", 3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3, "rew')
    assert read_series(folder / "metrics.jsonl")["reward"][0].tolist() == [0, 1, 2]


def test_what_a_line_leaves_out_because_there_was_none_is_zero(tmp_path):
    """Reasons of failures, and shares of elements; a line that counted neither, or a null, says nothing."""
    rows = [
        {"failed": 0.0, "mean_atoms": 9.0, "share_F": 0.1},
        {"failed": 2.0, "mean_atoms": 9.0, "failed_scf": 2.0, "share_F": None},
        {"reward": 1.0},
        {"failed": 0.0, "mean_atoms": 9.0},
    ]
    log = "".join(json.dumps({"iteration": number, **row}) + "\n" for number, row in enumerate(rows))
    (tmp_path / "metrics.jsonl").write_text(log)
    found = read_series(tmp_path / "metrics.jsonl")
    for name, iterations, values in (("failed_scf", [0, 1, 3], [0, 2, 0]), ("share_F", [0, 3], [0.1, 0])):
        assert [part.tolist() for part in found[name]] == [iterations, values]


def test_numbers_keep_their_whole_part():
    assert rounded(np.array([-1234567.8, 12345.67, 0.1234567])) == [-1234568, 12346, 0.12346]


def test_histograms_count_all_samples(run, report):
    rows = pq.read_table(run / "evaluation" / "evaluation.parquet").to_pylist()
    found = {histogram["title"]: histogram for histogram in report["histograms"]}
    assert list(found)[:4] == ["number of atoms", "elements", "rings of valid molecules", "rms_force"]
    assert not {"atoms", "rings"} & found.keys()  # each once
    sizes = [row["atoms"] for row in rows if row["column"] == "trained"]
    counted = found["number of atoms"]
    for label, share in zip(counted["labels"], counted["sides"][1]["shares"], strict=True):
        assert share == pytest.approx(sizes.count(int(label)) / 40, rel=1e-4)
    assert sum(found["elements"]["sides"][0]["shares"]) == pytest.approx(1, rel=1e-3)
    forces = found["rms_force"]["sides"][0]
    assert forces["missing"] == 1
    assert sum(forces["shares"]) == pytest.approx(39 / 40, rel=1e-3)


@pytest.fixture(scope="module")
def collapsed(qm9_test, records_of, tmp_path_factory) -> Path:
    """An evaluation whose trained model makes no rings, beside the known set."""
    records = records_of(qm9_test)
    without = np.array([record.rings == 0 for record in records])
    ringless, others = (qm9_test[torch.from_numpy(rows.nonzero()[0][:20])] for rows in (without, ~without))
    judged = {
        heading: molecules(structures, records_of, 0.0, 1.0)
        for heading, structures in (("base", others), ("trained", ringless), ("known set", qm9_test[:40]))
    }
    return write_evaluation(tmp_path_factory.mktemp("runs") / "collapsed", judged, set())


def test_a_collapse_of_the_chemistry_shows(collapsed, tmp_path):
    page = data(write_report([collapsed], tmp_path / "page.html").path)
    rows = pq.read_table(collapsed / "evaluation.parquet").to_pylist()
    [rings] = [histogram for histogram in page["histograms"] if histogram["title"] == "rings of valid molecules"]
    assert rings["labels"] == [str(number) for number in range(len(rings["labels"]))]
    assert [side["side"] for side in rings["sides"]] == [0, 1, 2]
    for side, heading in zip(rings["sides"], ("base", "trained", "known set"), strict=True):
        known = [row["rings"] for row in rows if row["column"] == heading and row["valid"]]
        shares = [known.count(int(label)) / len(known) for label in rings["labels"]]
        assert side["shares"] == pytest.approx(shares, rel=1e-4)
    assert rings["sides"][1]["shares"] == [1, *[0] * (len(rings["labels"]) - 1)]
    [row] = [row for row in page["tables"][0]["rows"] if row["name"] == "without_ring"]
    assert row["label"] == "valid molecules without a ring"  # no arrow
    assert [cell["value"] for cell in row["cells"][:2]] == ["0.0", "100.0"]
    assert row["cells"][1]["verdict"] == "higher"  # neither better nor worse


def test_an_evaluation_of_a_version_that_counted_no_rings(collapsed, tmp_path):
    shutil.copytree(collapsed, tmp_path / "old")
    table = tmp_path / "old" / "evaluation.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["rings", "heavy_atoms"]), table)
    page = data(write_report([tmp_path / "old"], tmp_path / "page.html").path)
    titles = [histogram["title"] for histogram in page["histograms"]]
    assert titles[:3] == ["number of atoms", "elements", "rms_force"]
    assert not [title for title in titles if "rings" in title]


def test_a_run_without_an_evaluation_is_curves_alone(run, tmp_path):
    young = write_log(tmp_path / "young", 2)
    found = data(write_report([young]).path)
    assert (found["tables"], found["sides"], found["histograms"]) == ([], [], [])
    assert [len(curve["lines"]) for curve in found["curves"]] == [1] * 4
    both = data(write_report([run, young], tmp_path / "both.html").path)
    assert [entry["sides"] for entry in both["runs"]] == [[0, 1], []]
    assert len(both["curves"][0]["lines"]) == 2


def test_an_evaluation_of_a_version_without_a_table_of_samples(run, tmp_path):
    shutil.copytree(run / "evaluation", tmp_path / "old")
    (tmp_path / "old" / "evaluation.parquet").unlink()
    found = data(write_report([tmp_path / "old"]).path)
    assert len(found["tables"]) == 1
    assert found["runs"][0]["samples"] is False
    assert [side["samples"] for side in found["sides"]] == [None, None]


def test_runs_that_share_their_base_show_it_once(run, judged, tmp_path, qm9_test, records_of):
    other = write_log(tmp_path / "other", 30, 0.5, "demo", "seed=1")
    again = {"base": judged["base"], "trained": molecules(qm9_test[:40], records_of, 0.03, 2.0)}
    write_evaluation(other / "evaluation", again, {"molecule_stability"}, "another command")
    found = data(write_report([run, other], tmp_path / "both.html").path)
    assert [side["name"] for side in found["sides"]] == ["base", "mine: trained", "other: trained"]
    assert [entry["sides"] for entry in found["runs"]] == [[0, 1], [0, 2]]
    assert len({side["draw"] for side in found["sides"]}) == 1
    [table] = found["tables"]
    assert table["sides"] == [0, 1, 2]
    assert ["seed", ["0", "1"]] in found["settings"]["differing"]
    assert not [key for key, _ in found["settings"]["differing"] if key == "save_path"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_table_that_one_of_two_runs_has_keeps_the_base_of_both(run, judged, tmp_path, qm9_test, records_of, first):
    other = write_log(tmp_path / "other", 30, 0.5, "demo", "seed=1")
    again = {"base": judged["base"], "trained": molecules(qm9_test[:40], records_of, 0.03, 2.0)}
    write_evaluation(other / "evaluation", again, {"molecule_stability"}, "another command")
    main_table = other / "evaluation" / "evaluation.json"
    shutil.copy(main_table, main_table.with_name("evaluation_relaxed.json"))
    runs = [run, other] if first == 0 else [other, run]
    found = data(write_report(runs, tmp_path / "both.html").path)
    names = [side["name"] for side in found["sides"]]
    assert [sorted(names[side] for side in table["sides"]) for table in found["tables"]] == [
        ["base", "mine: trained", "other: trained"],
        ["base", "other: trained"],
    ]


def test_what_cannot_be_compared_stands_in_tables_of_its_own(run, crystal_run, tmp_path):
    found = data(write_report([run, crystal_run], tmp_path / "both.html").path)
    assert [table["sides"] for table in found["tables"]] == [[0, 1], [2, 3]]
    assert [side["name"] for side in found["sides"]] == [
        "mine: base",
        "mine: trained",
        "crystals: base",
        "crystals: trained",
    ]


def test_a_large_evaluation_shows_a_part_and_says_so(judged, tmp_path, monkeypatch, capsys):
    folder = write_evaluation(tmp_path / "many", judged, set())
    without = len(reporting.page("", {})) + 60_000
    monkeypatch.setattr(reporting, "LARGEST", without)
    monkeypatch.setattr(reporting, "PROBE", 4)
    main(["report", str(folder)])
    path = folder / "report.html"
    assert path.stat().st_size <= without
    found = data(path)
    ids = [side["samples"]["ids"] for side in found["sides"]]
    assert 8 < len(ids[0]) < 40
    assert ids[0] == ids[1] == sorted(set(ids[0]))
    assert [side["held"] for side in found["sides"]] == [40, 40]
    assert {"00001", "00039"} <= set(ids[0])  # the lowest force that is known, and the highest
    said = capsys.readouterr().out.splitlines()
    held = f"base: {len(ids[0])} of 40; trained: {len(ids[0])} of 40"
    assert said[0] == f"it holds only a part of the samples, as the page says: {held}"
    monkeypatch.setattr(reporting, "LARGEST", 1000)
    with pytest.raises(UserError, match="give fewer"):
        write_report([folder])


def test_names_are_escaped_and_the_page_runs_its_own_scripts_alone(judged, tmp_path):
    hostile = "<script>document.title='x'<!--"
    path = write_report([write_log(tmp_path / hostile)]).path
    text = path.read_text()
    assert hostile not in text
    assert "&lt;script&gt;document.title=&#x27;x&#x27;&lt;!--" in text
    assert data(path)["runs"][0]["name"] == hostile
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    hashes = {f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}" for script in scripts}
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert set(re.findall(r"'(sha256-[^']+)'", policy)) == hashes
    assert len(hashes) == 2
    assert "default-src 'none'" in policy
    assert "<!-- {" not in text


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda folder: folder / "nowhere", "nothing at .*nowhere: give a run directory"),
        (lambda folder: "edm_qm9_small", "edm_qm9_small is a model, not a run: give a run directory"),
        (lambda folder: folder, "is empty: give a run directory"),
        (lambda folder: write_log(folder / "run", 0), "nothing to report of .*run: no iteration of that run has ended"),
        (lambda folder: shared(write_log(folder / "run", 0)), "is a model, not a run: give a run directory"),
    ],
    ids=["nothing", "model", "empty", "no iteration", "shared"],
)
def test_what_is_no_run_is_one_line(made, said, tmp_path, capsys):
    where = made(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(where)])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.jsonl", '{"iteration": 0}\nno JSON\n', r"metrics\.jsonl: line 2 is not JSON"),
        ("metrics.jsonl", '{"reward": 1}\n', r"metrics\.jsonl: line 1 has no number of its iteration"),
        ("config.yaml", "- a list", r"config\.yaml holds no keys with values"),
        ("config.yaml", "a: [", r"config\.yaml is not YAML"),
        ("evaluation/evaluation.json", "{", r"evaluation\.json is not the table of an evaluation"),
        ("evaluation/evaluation.json", "{}", r"evaluation\.json is not the table of an evaluation \(profile: "),
        ("evaluation/evaluation.parquet", "PAR1", r"evaluation\.parquet cannot be read"),
        ("evaluation/base.extxyz", "3\n\nH 0 0 0\n", r"base\.extxyz cannot be read \(it ends within a structure\)"),
    ],
)
def test_a_damaged_file_is_named(run, tmp_path, name, content, said):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink(missing_ok=True)
    (tmp_path / "run" / "evaluation" / "base.sdf").write_text("")  # so that its extended XYZ is read
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        write_report([tmp_path / "run"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "report.html").exists()


def test_samples_of_another_evaluation_are_refused(run, judged, tmp_path, qm9_test, records_of):
    shutil.copytree(run / "evaluation", tmp_path / "mixed")
    (tmp_path / "mixed" / "trained.sdf").unlink()
    lines = (tmp_path / "mixed" / "trained.extxyz").read_text().splitlines(keepends=True)
    (tmp_path / "mixed" / "trained.extxyz").write_text("".join(lines[: int(lines[0]) + 2]))
    with pytest.raises(UserError, match="holds 1 structures, the table of samples 40: copy both again"):
        write_report([tmp_path / "mixed"])


@pytest.mark.parametrize("name", ["report.txt", "report", "folder.html"])
def test_a_report_is_an_html_file(run, tmp_path, name):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UserError, match=r"a report is one file whose name ends in \.html"):
        write_report([run], tmp_path / name)


def test_a_checkpoint_and_an_evaluation_name_what_they_are_of(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "checkpoint_best.pth").touch()
    [source] = find_sources([copy / "checkpoint_best.pth"])
    assert (source.name, source.run, source.evaluation) == ("copy", copy, copy / "evaluation")
    [source] = find_sources([run / "evaluation"])
    assert (source.name, source.run) == ("evaluation", None)
    names = [source.name for source in find_sources([run / "evaluation", copy / "evaluation", run])]
    assert names == [str(run / "evaluation"), str(copy / "evaluation"), "mine"]
    with pytest.raises(UserError, match="each once"):
        find_sources([run, run / "evaluation" / ".."])


def test_a_table_of_samples_is_read_as_it_was_written(tmp_path):
    base = {
        "sample_id": SampleColumn(["00000", "00001"], "id"),
        "energy": SampleColumn(np.array([1.5, np.nan]), "energy", "eV"),
        "novel": SampleColumn(np.array([True, False]), "novel"),
        "reason": SampleColumn([None, "scf"], "why"),
        "relaxed": SampleColumn(np.array([True, False]), "relaxed", known=np.array([True, False])),
    }
    trained = {**base, "atoms": SampleColumn(np.array([5, 6]), "number of atoms")}
    write_sample_table(tmp_path / "table.parquet", {"base": base, "trained": trained}, {})
    found = read_sample_table(tmp_path / "table.parquet")
    assert {heading: list(columns) for heading, columns in found.items()} == {
        "base": list(base),
        "trained": list(trained),
    }
    for name, column in trained.items():
        again = found["trained"][name]
        assert (again.about, again.unit) == (column.about, column.unit)
        np.testing.assert_array_equal(again.known, column.known)
        np.testing.assert_array_equal(np.asarray(again.values), np.asarray(column.values))
    pq.write_table(pq.read_table(tmp_path / "table.parquet").drop_columns(["sample_id"]), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="holds no samples of an evaluation"):
        read_sample_table(tmp_path / "other.parquet")


def test_a_sample_is_unknown_to_a_table_that_it_had_no_part_in(judged, tmp_path):
    """Neither end of such a column is better, and its reason is not the one below the sample's picture."""
    part = {
        "relaxed": SampleColumn(np.array([True, False]), "relaxed to a minimum"),
        "relaxed_rmsd": SampleColumn(np.array([0.25, np.inf]), "RMSD", "Å"),
        "relaxed_reason": SampleColumn([None, "slow"], "why not"),
    }
    about = at_rows(part, np.array([1, 3]), 40)
    write_evaluation(tmp_path / "some", {"base": replace(judged["base"], about=about)}, set())
    page = data(write_report([tmp_path / "some"], tmp_path / "page.html").path)
    values = page["sides"][0]["samples"]["values"]
    assert values["relaxed"] == [None, 1, None, 0, *[None] * 36]
    assert values["relaxed_rmsd"] == [None, 0.25, *[None] * 38]
    assert values["relaxed_reason"] == [None, None, None, "slow", *[None] * 36]
    columns = {column["name"]: column for column in page["columns"]}
    assert [columns[name]["better"] for name in ("relaxed", "relaxed_rmsd", "valid")] == ["", "", "higher"]
    assert [columns[name]["tag"] for name in ("relaxed_reason", "force_field_reason")] == [False, True]
