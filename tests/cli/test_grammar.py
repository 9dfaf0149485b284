"""One grammar for every command: options and key=value in any order; text stays as it was typed."""

import json
import sys
from pathlib import Path

import pytest

from atomrl.cli import main
from atomrl.config import load_config, read_config
from atomrl.pretraining.edm_run import PretrainRun
from atomrl.pretraining.session import options_from
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY, write


def test_train_takes_options_and_keys_in_any_order(tmp_path: Path) -> None:
    backbone = write(tmp_path / "backbone")
    before, after = TINY[:6], TINY[6:]
    words = [*before, "--config-name", "demo", f"model.backbone={backbone}", *after, "dataloader.epoches=1"]
    main(["train", f"save_path={tmp_path / 'run'}", *words])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_evaluate_takes_options_and_keys_in_any_order(tmp_path: Path) -> None:
    backbone, output = write(tmp_path / "backbone"), tmp_path / "evaluation"
    words = ["--base", str(backbone), "reward.timeout=20", "--output", str(output), "reward.workers=1"]
    main(["evaluate", *words, "-n", "2", "--time-step=10", "evaluation.relaxed=0"])
    assert json.loads((output / "evaluation.json").read_text())["columns"]["base"]["samples"] == 2


@pytest.mark.parametrize(
    "words",
    [
        "--sizes 4 6 reward.timeout=20 --best-of 2",
        "reward.timeout=20 --best-of 2 --sizes 4 6",
        "--best-of 2 --sizes 4 reward.timeout=20 --sizes 4 6",
    ],
)
def test_a_list_of_an_option_ends_where_a_key_begins(words: str, tmp_path: Path) -> None:
    backbone = write(tmp_path / "backbone")
    rest = [
        "-n",
        "2",
        "--time-step",
        "10",
        "--output",
        str(tmp_path / "out.extxyz"),
    ]
    main(["sample", "--backbone", str(backbone), *words.split(), *rest, "reward.workers=1"])
    assert (tmp_path / "out.extxyz").read_text().splitlines()[0] in {"4", "6"}


def test_a_file_of_an_option_may_have_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    monkeypatch.setattr("atomrl.commands.samples._evaluate_structures", lambda options, _: found.update(vars(options)))
    (tmp_path / "a.b=c.cif").touch()
    main(["evaluate", "--structures", str(tmp_path / "a.b=c.cif"), "reward.workers=1", "--known", "3"])
    assert found["structures"] == [str(tmp_path / "a.b=c.cif")]
    assert found["overrides"] == ["reward.workers=1"]


@pytest.mark.parametrize("name", ["007", "1e3", "on", "5", "1_000", "inf", "true", "'on'"])
def test_a_path_stays_as_it_was_typed(name: str) -> None:
    assert load_config("demo", [f"save_path={name}"]).save_path == name.strip("'")
    crystals = load_config("demo", [f"save_path={name}", "experiment=prototypes/rl_dng"])
    assert crystals.save_path == name.strip("'")
    assert options_from(PretrainRun, [f"save_path={name}"], "pretrain edm").save_path == name.strip("'")


def test_null_is_no_path_and_a_number_is_no_text() -> None:
    config = load_config("demo", ["save_path=null", "wandb.name=12", "max_time_hours=1e1", "log.csv=on"])
    assert (config.save_path, config.wandb.name, config.max_time_hours, config.log.csv) == (None, "12", 10.0, True)


def test_a_run_is_where_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "backbone")
    main(["train", *TINY, "model.backbone=backbone", "save_path=007", "dataloader.epoches=1"])
    assert read_config(tmp_path / "007" / "config.yaml").save_path == "007"
    assert not (tmp_path / "7").exists()


def test_python_composes_as_the_command_line_does(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment=prototypes/rl_dng", "seed=3"]
    config = load_config("demo", words)
    assert config == load_config("experiment/prototypes/rl_dng", ["seed=3"])
    with pytest.raises(UserError, match="name one YAML only"):
        load_config("demo_fed_grpo", words)
    with pytest.raises(UserError, match="experiment=nope: the package has no such configuration"):
        load_config("demo", ["experiment=nope"])
    main(["train", "--print-config", *words])
    printed = capsys.readouterr().out
    assert printed.startswith("domain: crystals\nseed: 3\n")
    main(["train", "--print-config", "--config-name", "demo", *words])
    assert capsys.readouterr().out == printed


def test_a_printed_configuration_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It can be read again, and says all that the words say; nothing is trained."""
    main(["train", *TINY, "--print-config", f"save_path={tmp_path / 'run'}"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    expected = load_config("demo", [*TINY, f"save_path={tmp_path / 'run'}"])
    assert read_config(tmp_path / "printed.yaml") == expected
    assert load_config("printed", folder=tmp_path) == expected
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit) as caught:
        main(["train", "--print-config", "nonsense=1"])
    assert caught.value.code == 2
