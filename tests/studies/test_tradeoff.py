"""One metric against another, of several evaluations."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from matplotlib import figure as figures

from atomrl.config import load_config, to_yaml
from atomrl.evaluation.table_file import read_table
from atomrl.measures.bootstrap import Estimate
from studies.steps import StudyStep
from studies.tradeoff import Point, _write_labels, main, read_points


def table(columns: dict[str, tuple[float | None, float]], profile: str = "p") -> dict[str, Any]:
    def metric(place: int, label: str, unit: str) -> dict[str, object]:
        estimates = {}
        for name, values in columns.items():
            value = values[place]
            ends = {"low": None, "high": None} if value is None else {"low": value - 0.1, "high": value + 0.1}
            estimates[name] = {"value": value, **ends, "denominator": 10}
        return {"label": label, "unit": unit, "counted": "samples", "better": "neither", "columns": estimates}

    about = {"samples": 10, "command": "atomrl evaluate"}
    return {
        "profile": profile,
        "evaluator": "GFN2-xTB",
        "conditions": {},
        "metrics": {"stable": metric(0, "stable ones", "%"), "force": metric(1, "force", "eV/Å")},
        "columns": {name: about | {"time_step": None if name == "known set" else 50} for name in columns},
    }


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    tables = {
        "one": table({"base": (0.25, 1.5), "base best of 4": (0.7, 1.2), "trained": (0.8, 1.3)}),
        "two": table({"base": (0.25, 1.5), "trained": (0.85, 1.25), "unknown": (None, 1.0), "known set": (0.9, 0.4)}),
    }
    for name, content in tables.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps(content))
    return [tmp_path / name for name in tables]


def test_points_in_the_units_of_the_table(folders: list[Path]) -> None:
    tables = {folder: read_table(folder / "evaluation.json") for folder in folders}
    points, undrawn = read_points(tables, "stable", "force")
    assert undrawn == ["not drawn: unknown, two: it has no stable ones, %"]
    assert [(point.label, point.x.value, point.y.value, point.joined) for point in points] == [
        ("base", 25.0, 1.5, True),
        ("base best of 4", 70.0, 1.2, True),
        ("trained, one", 80.0, 1.3, False),
        ("trained, two", 85.0, 1.25, False),
    ]
    assert (points[0].x.low, points[0].x.high) == pytest.approx((15.0, 35.0))


def test_the_larger_of_two_evaluations_of_one_model_is_drawn(tmp_path: Path) -> None:
    tables = {}
    for name, values, samples, asked in (
        ("few", (0.3, 1.6), 10, {}),
        ("many", (0.25, 1.5), 20, {}),
        ("other", (0.2, 1.4), 5, {"alpha": 60.0}),
    ):
        content = table({"base": values, "base best of 4": values})
        for column, drawn in zip(content["columns"].values(), (samples, 4 * samples), strict=True):
            column |= {"samples": samples, "drawn": drawn, "model": {"origin": "m", "weights": "w"}, "asked": asked}
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(json.dumps(content))
        tables[tmp_path / name] = read_table(tmp_path / name / "evaluation.json")
    points, _ = read_points(tables, "stable", "force")
    assert [(point.label, point.y.value) for point in points] == [
        ("base best of 4", 1.6),
        ("base", 1.5),
        ("base best of 4", 1.5),
        ("base", 1.4),
        ("base best of 4", 1.4),
    ]


def test_labels_stay_in_the_figure_and_apart() -> None:
    """Those of points to the right stand left of them, and one of a point beside another below the other's."""
    values = {"base": (0.0, 0.0), "high": (1.0, 10.0), "near": (0.99, 9.9)}
    points = [
        Point(name, *(Estimate(one, one, one, 1) for one in place), joined=False, time_step=50)
        for name, place in values.items()
    ]
    axes = figures.Figure(figsize=(7, 5)).subplots()
    axes.plot(*zip(*values.values(), strict=True))
    _write_labels(axes, [(point, point.label) for point in points])
    axes.figure.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert boxes.keys() == values.keys()
    assert all(axes.bbox.x0 < box.x0 < box.x1 < axes.bbox.x1 for box in boxes.values())
    assert not boxes["high"].overlaps(boxes["near"])
    assert boxes["near"].y1 <= boxes["high"].y0


def test_the_figure_and_its_mistakes(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--x", "stable", "--y", "force", "--output", str(tmp_path / "a.svg")]
    failed = json.loads((folders[0] / "evaluation.json").read_text())
    failed["metrics"]["force"]["columns"]["trained"] |= {"value": "inf", "high": "inf"}
    failed["metrics"]["force"]["columns"]["base best of 4"] |= {"high": "inf"}
    (folders[0] / "evaluation.json").write_text(json.dumps(failed))
    main([*map(str, folders), *words])
    assert capsys.readouterr().out.splitlines() == [
        f"3 columns -> {tmp_path / 'a.svg'}",
        "not drawn: trained, one: its force, eV/Å is infinite",
        "not drawn: unknown, two: it has no stable ones, %",
    ]
    text = (tmp_path / "a.svg").read_text()
    assert all(word in text for word in ("stable ones, %", "force, eV/Å", 'id="trained,-two"', "base best of 4"))
    (folders[1] / "evaluation.json").write_text(json.dumps(table({"base": (0.2, 1.0)}, "q")))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "evaluation.json").write_text("{}")
    for given, said in [
        ([str(folders[0]), *words[2:]], "has no molecule_stability: choose from stable, force"),
        ([*map(str, folders), *words], "is of profile q, the first of p"),
        ([str(tmp_path), *words], "evaluation.json cannot be read"),
        ([str(tmp_path / "none"), *words], "evaluation.json is not the table of an evaluation"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(given)
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1


def test_the_evaluations_of_a_run_are_made_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step of the queue for each N, which share what they have in common."""
    asked = []

    class AtOnce:
        """Stands for the queue."""

        def __init__(self, steps: list[StudyStep], folder: Path, jobs: int) -> None:
            self.steps = steps

        def run(self) -> None:
            for step in self.steps:
                asked.append(step)
                n = step.words[-1]
                columns = {"base": (0.25, 1.5), f"base best of {n}": (0.3 + 0.02 * int(n), 1.2), "trained": (0.8, 1.3)}
                step.output.path.parent.mkdir(parents=True)
                step.output.path.write_text(json.dumps(table(columns)))

    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(load_config("demo")))
    monkeypatch.setattr("studies.tradeoff.Queue", AtOnce)
    words = ["--trained", str(run), "--folder", str(tmp_path / "made"), "--x", "stable", "--y", "force"]
    main([*words, "--output", str(tmp_path / "a.svg")])
    assert capsys.readouterr().out == f"7 columns -> {tmp_path / 'a.svg'}\n"
    assert [step.name for step in asked] == [f"best-of-{n}" for n in (2, 4, 8, 16, 21)]
    assert f"--base edm_qm9_small --trained {run} --num-samples 500 --time-step 100" in asked[0].command
    assert {step.extra for step in asked} == {("--keep", str(tmp_path / "made" / "kept"))}
    for more, said in [
        (["--best-of", "4,budget"], "--best-of 4,budget: give numbers"),
        (["--best-of", "1"], "give different numbers above 1"),
        (["--time-step", "0"], "--time-step 0: must be at least 1"),
        (["--trained", str(tmp_path)], "config.yaml: No such file"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main([*words, *more, "--output", str(tmp_path / "b.svg")])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "b.svg")])
    assert "give evaluations, or a run with --trained" in capsys.readouterr().err

    (run / "checkpoint_latest.pth").touch()  # trained further since
    later = (tmp_path / "made" / "best-of-2" / "evaluation.json").stat().st_mtime + 10
    os.utime(run / "checkpoint_latest.pth", (later, later))
    with pytest.raises(SystemExit):
        main([*words, "--output", str(tmp_path / "b.svg")])
    assert "as it was before it was trained further: give another --folder" in capsys.readouterr().err
