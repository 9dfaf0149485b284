"""A run directory, a checkpoint, a folder of weights and a shipped name are taken alike, or a line says what to do."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from atomrl.checkpoints.named import named_model
from atomrl.cli import main
from atomrl.config import load_config, to_yaml
from atomrl.training.run import train
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY, write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    words = [f"model.backbone={write(folder / 'backbone')}", f"save_path={folder / 'run'}", "dataloader.epoches=2"]
    return train(load_config("demo", [*TINY, *words]), "demo")


def sampled(model: object, output: Path) -> str:
    main(["sample", "--backbone", str(model), "-n", "2", "--time-step", "10", "--output", str(output)])
    return output.read_text()


def evaluated(output: Path, *words: object) -> Any:
    rest = ["-n", "2", "--time-step", "10", "reward.workers=1", "--output", str(output)]
    main(["evaluate", *map(str, words), *rest])
    return json.loads((output / "evaluation.json").read_text())


def test_what_is_named(run: Path) -> None:
    latest, best = run / "checkpoint_latest.pth", run / "checkpoint_best.pth"
    assert (named_model(run).weights, named_model(run).described) == (latest, run / "config.yaml")
    assert (named_model(best).weights, named_model(best).described) == (best, run / "config.yaml")
    assert (named_model(run.parent / "backbone").weights, named_model(run.parent / "backbone").described) == (
        run.parent / "backbone",
        None,
    )
    assert named_model("edm_qm9_small").weights.name == "edm_qm9_small"
    assert named_model("edm_qm9_small").described is None


def test_a_run_directory_is_its_latest_checkpoint(run: Path, tmp_path: Path) -> None:
    latest = sampled(run / "checkpoint_latest.pth", tmp_path / "a.extxyz")
    assert sampled(run, tmp_path / "b.extxyz") == latest
    assert sampled(run.parent / "backbone", tmp_path / "c.extxyz") != latest


def test_a_training_may_start_from_a_run(run: Path, tmp_path: Path) -> None:
    words = [f"model.backbone={run}", f"save_path={tmp_path / 'next'}", "dataloader.epoches=1"]
    assert (train(load_config("demo", [*TINY, *words]), "demo") / "checkpoint_latest.pth").is_file()


def test_evaluate_takes_each_of_them(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run has its own base. A model without its run has no rewarded metrics, and the command says so."""
    rewarded, backbone = tmp_path / "rewarded", run.parent / "backbone"
    shutil.copytree(run, rewarded)
    words = ["evaluation.samples=0", f"model.backbone={backbone}"]
    (rewarded / "config.yaml").write_text(to_yaml(load_config("demo", words)))
    with_run = evaluated(tmp_path / "one", "--trained", rewarded)
    assert with_run["columns"]["base"]["model"]["origin"] == str(backbone)
    assert with_run["rewarded"]
    assert "without its run" not in capsys.readouterr().out
    without = evaluated(tmp_path / "two", "--base", run, "--trained", backbone)
    assert without["rewarded"] == []
    assert f"{backbone} is a model without its run's config.yaml" in capsys.readouterr().out


def test_what_cannot_be_taken(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=rf"only weights.*give {run}/checkpoint_best.pth, which holds the same"):
        named_model(run / "generative_model_ema.npy")
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=r"has no checkpoint_latest\.pth yet"):
        named_model(tmp_path)
    with pytest.raises(UserError, match=r"no backbone at nowhere: give one of edm_qm9_small, .*a run directory"):
        named_model("nowhere")
    for words, message in (
        (
            ["--base", "edm_qm9_small", "--trained", "crystal_small"],
            "--trained crystal_small one of crystals: give two of one kind",
        ),
        (["--trained", "crystal_small", "--steer", "2"], "and crystal_small is a model without its run: give the run"),
        (["--trained", "edm_qm9_small", "--best-of", "2"], "edm_qm9_small is a model without its run: give the run"),
        (["--trained", "edm_qm9_small", "--steer", "2"], "--steer 2 chooses by a training's reward, and edm_qm9_small"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", *words, "--output", str(tmp_path / "out")])
        assert caught.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
