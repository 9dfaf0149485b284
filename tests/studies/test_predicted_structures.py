"""The command that counts which held-out crystals a model finds by their formula, beside a look-up."""

import json
from pathlib import Path

import pytest
import small_crystal_set
from conditional_crystals import FORMULA, GAP, write

from studies.predicted_structures import main

QUICK = ["-n", "2", "--tries", "1", "--time-step", "2"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MgO and LiF, held out, are rock salt as NaCl is, which the look-up knows; the model's weights are random."""
    data, model, out = small_crystal_set.write(tmp_path / "set"), write(tmp_path / "net", (FORMULA,)), tmp_path / "out"
    words = [str(model), str(data), *QUICK, "--output", str(out)]
    main([*words, "model.guidance_scale=3"])
    said = capsys.readouterr().out
    assert (out / "prediction.md").read_text() in said
    assert "| the first guess | 0.0 [0.0, 84.2] / 2 crystals | 100.0 [15.8, 100.0] / 2 crystals |" in said
    assert "0 matched by both, 0 by the model alone, 2 by the look-up alone, 0 by neither" in said
    assert "formula is none of 6 training crystals" in said
    assert "ddpm, eta 1, guidance 3" in said
    record = json.loads((out / "prediction.json").read_text())
    assert record["match_rate"]["nearest_formula"]["2"]["value"] == 1
    assert {one["formula"]: one["nearest_formula"][0]["of"] for one in record["of_each"]} == {
        "MgO": "NaCl",
        "LiF": "NaCl",
    }
    assert record["verdicts"]["model"] == {"composition": 4}
    assert record["walks"] == 4
    assert {path.name for path in out.iterdir()} == {"prediction.md", "prediction.json"}
    with pytest.raises(SystemExit):
        main(words)
    assert f"--output {out} holds a prediction: give another folder" in capsys.readouterr().err


def test_a_part_of_the_crystals(tmp_path: Path) -> None:
    data, model = small_crystal_set.write(tmp_path / "set"), write(tmp_path / "net", (FORMULA, GAP))
    main([str(model), str(data), *QUICK, "--limit", "1", "--splits", "val", "--output", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["crystals"] == 1


def test_it_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was sampled is not sampled again."""
    data, model = small_crystal_set.write(tmp_path / "set"), write(tmp_path / "net", (FORMULA,))
    words = [str(model), str(data), *QUICK, "--output", str(tmp_path / "out")]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("atomrl.evaluation.structure_prediction.NearestFormulas", stopped)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert ended.value.code == 130
    assert f"continue with python -m studies.predicted_structures {model}" in capsys.readouterr().out
    monkeypatch.setattr("atomrl.evaluation.evaluate.structures_of", stopped)
    main(words)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"prediction.md", "prediction.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crystal_small", "prototypes"], "is not conditioned on composition: make a model that is"),
        (["edm_qm9_small", "prototypes"], "is not conditioned on composition: make a model that is"),
        (["NET", "nowhere"], "no crystals in nowhere"),
        (
            ["NET", "SET", "--splits", "test"],
            "none of the 0 crystals of test has a formula that the training split lacks",
        ),
        (["NET", "SET", "-n", "0"], "-n 0: must be at least 1"),
        (["NET", "SET", "--limit", "0"], "--limit 0: must be at least 1"),
        (["NET", "SET", "reward.type=dummy"], "reward.type=dummy: nothing is rewarded here; leave it out"),
        (["NET", "SET", "--splits", "train"], "invalid choice: 'train'"),
    ],
)
def test_what_a_user_can_get_wrong(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("NET"), (FORMULA,))
    small_crystal_set.write(Path("SET"))
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--output", "out"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("out").exists()
