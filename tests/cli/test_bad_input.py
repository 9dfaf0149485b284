"""What a user gets wrong ends in one clear line and exit code 2, with nothing half-written."""

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atomrl.cli import main
from atomrl.evaluation import evaluate as evaluation

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY, write


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return write(tmp_path / "backbone")


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> str:
    """The one line of a refused `atomrl train` into tmp_path/run, which must not come into being."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["train", *TINY, f"save_path={tmp_path / 'run'}", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    assert error.startswith("error: ")
    assert not (tmp_path / "run").exists()
    return error


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reward.tpye=dummy", "did you mean type"),
        ("nonsense=1", "unknown configuration key nonsense"),
        ("train.learning_rate=fast", "train.learning_rate='fast' is not of type float"),
        ("dataloader.micro_batch_size=2", "never split"),
        ("train.train_steps=1000", "exceeds model.time_step"),
        ("train.train_min_time=1.0", "the first below the second"),
        ("train.step_weighting=sideways", "published, balanced"),
        ("model.time_step=0", "at least 1"),
        ("model.time_step=2000", "a walk of 2000 steps: use between 1 and 1000"),
        ("evaluation={samples: 1, time_step: 2000}", "error: a walk of 2000 steps: use between 1 and 1000"),
        ("train.max_grad_norm=-1", "train.max_grad_norm=-1.0: must be positive"),
        ("threads=0", "at least 1"),
        ("threads=100000", "at most 1024"),
        ("reward.gate=open", "gate"),
        ("resume=true", "nothing to resume"),
        ("wandb.enabled=true", "atomrl[wandb]"),
        ("train.step_weighting", "key=value"),
        ("save_path=a=b", "put it in quotes of its own, 'save_path=\"a=b\"'"),
        ("dataloader.nodes_dist_focus_multiplier=0", "leaves no size: narrow the sizes"),
        (
            "reward={type: xtb, use_energy: true, energy_atom_refs: {H: -1, C: -2, N: -3, O: -4}}",
            "lacks the backbone's elements F,",
        ),
        (
            "reward={type: xtb, use_energy: true, energy_atom_refs: {Hh: -1}}",
            "by symbol (H, C, ...), got 'Hh'",
        ),
    ],
)
def test_configuration(
    override: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: Path
) -> None:
    assert message in refused(capsys, tmp_path, f"model.backbone={backbone}", override)


def test_configuration_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(capsys, tmp_path, "--config-name", "nope")
    assert "--config-name nope: the package has no such configuration" in message
    assert "--config-name demo, " in message
    assert "experiment=prototypes/rl_dng, " in message
    assert "experiment=nope: the package has no such configuration" in refused(capsys, tmp_path, "experiment=nope")
    (tmp_path / "empty").mkdir()
    assert "has no such configuration; it has none" in refused(
        capsys, tmp_path, "--config-dir", str(tmp_path / "empty")
    )
    assert "no such folder" in refused(capsys, tmp_path, "--config-dir", str(tmp_path / "absent"))
    (tmp_path / "mine.yaml").write_text("reward:\n  tpye: dummy\n")
    message = refused(capsys, tmp_path, "--config-dir", str(tmp_path), "--config-name", "mine")
    assert "reward.tpye" in message
    (tmp_path / "broken.yaml").write_text("reward: {type: dummy\nmodel: [\n")
    message = refused(capsys, tmp_path, "--config-dir", str(tmp_path), "--config-name", "broken")
    assert "broken.yaml" in message
    assert "line 2" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample --time-step 0", "--time-step 0: must be at least 1"),
        ("evaluate --time-step -1", "--time-step -1: must be at least 1"),
        ("sample --num-samples 0", "must be at least 1"),
        ("evaluate --best-of -3", "--best-of -3: must be at least 2"),
        ("evaluate --best-of 1", "--best-of 1: must be at least 2"),
        ("evaluate --known -1", "--known -1: must be at least 1"),
        ("evaluate --reject 1", "--reject 1: must be at least 2"),
        ("sample --reject -4", "--reject -4: must be at least 2"),
        ("evaluate --steer 1", "--steer 1: must be at least 2; 0 or nothing for no such control"),
        ("sample --steer-temperature 0", "--steer-temperature 0 says how particles are resampled: give --steer too"),
        ("sample --best-of 2 --steer-places 4", "--steer-places 4 says how particles are resampled: give --steer too"),
        ("evaluate --steer-places 4", "--steer-places 4 says how particles are resampled: give --steer too"),
        ("sample --steer 2 --steer-temperature -1", "--steer-temperature -1: must be 0 or more, and finite"),
        ("evaluate --steer 2 --steer-temperature nan", "--steer-temperature nan: must be 0 or more, and finite"),
        ("sample --steer 2 --steer-places 0", "--steer-places 0: must be at least 1; --best-of resamples at no place"),
        ("sample --time-step 2000", "error: a walk of 2000 steps: use between 1 and 1000"),
        (
            "sample --steer 2 --time-step 5 --steer-places 6",
            "--steer-places 6: must be at most 5, the steps of the walk",
        ),
    ],
)
def test_options_of_samples(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: Path
) -> None:
    command, *rest = words.split()
    model = {"sample": "--backbone", "evaluate": "--base"}[command]
    with pytest.raises(SystemExit) as caught:
        main([command, model, str(backbone), "--output", str(tmp_path / "out.sdf"), *rest])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out.sdf").exists()


def test_an_evaluation_is_not_written_over(capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: Path) -> None:
    """Samples of its columns would be left beside the new tables."""
    (tmp_path / "evaluation.md").write_text("hours of work")
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--base", str(backbone), "--output", str(tmp_path)])
    assert caught.value.code == 2
    assert f"--output {tmp_path} holds an evaluation: give another folder" in capsys.readouterr().err
    assert (tmp_path / "evaluation.md").read_text() == "hours of work"


@pytest.mark.parametrize(
    ("command", "output", "message"),
    [
        ("sample", "file/out.sdf", "cannot create the folder of --output"),
        ("sample", "folder.sdf", "is a folder: give a file in it"),
        ("evaluate", "file/out", "cannot create --output"),
    ],
)
def test_places_that_cannot_be_written_are_found_before_sampling(
    command: str,
    output: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    backbone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "draw", lambda *_: pytest.fail("sampled"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.sdf").mkdir()
    model = {"sample": "--backbone", "evaluate": "--base"}[command]
    with pytest.raises(SystemExit) as caught:
        main([command, model, str(backbone), "--output", str(tmp_path / output)])
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("words", [["train"], ["pretrain", "edm"], ["pretrain", "vae"]])
def test_several_processes(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What torchrun says to each process that it starts."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "error: WORLD_SIZE=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--resume"], "--resume"),
        (["sample", "--seed", "1.5"], "invalid int value: '1.5'"),
        (["evaluate", "--best-of", "2"], "give the run with --trained"),
        (["evaluate", "--steer", "2"], "--steer 2 chooses by a training's reward: give the run with --trained"),
        (
            ["evaluate", "--structures", "a.sdf", "--steer", "2"],
            "--steer is about samples of a model, and --structures",
        ),
        ([], "command"),
        (["resume"], "the following arguments are required: RUN; atomrl resume --help"),
        (["pretrain"], "the following arguments are required: what; atomrl pretrain --help"),
    ],
)
def test_words_of_a_command(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_missing_and_damaged_backbones(capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: Path) -> None:
    def message(where: Path) -> str:
        return refused(capsys, tmp_path, f"model.backbone={where}")

    assert "no backbone" in message(tmp_path / "absent")
    weights = backbone / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in message(backbone)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in message(backbone)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["dynamics.egnn.embedding.weight"] = torch.zeros(3, 3)
    save_file(tensors, weights)
    line = message(backbone)
    assert "dynamics.egnn.embedding.weight has shape (3, 3)" in line
    assert line.endswith("the card describes another network than these weights are of: take both of one model")
    del tensors["dynamics.egnn.embedding.weight"]
    save_file(tensors, weights)
    assert "missing ['dynamics.egnn.embedding.weight']" in message(backbone)
    weights.unlink()
    assert "lacks model.safetensors" in message(backbone)


class Malicious:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_malicious_checkpoint_is_not_executed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    for number, write_file in enumerate(
        (lambda p: torch.save({"atomrl": Malicious(trap)}, p), lambda p: p.write_bytes(pickle.dumps(Malicious(trap))))
    ):
        path = tmp_path / f"evil{number}.pth"
        write_file(path)
        assert "was not loaded" in refused(capsys, tmp_path, f"model.backbone={path}")
    assert not trap.exists()


def test_truncated_and_foreign_checkpoints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    assert "not a checkpoint of this package" in refused(capsys, tmp_path, f"model.backbone={path}")
    path.write_bytes(path.read_bytes()[:500])
    assert str(path) in refused(capsys, tmp_path, f"model.backbone={path}")


def test_an_element_that_the_force_field_does_not_know(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: Path
) -> None:
    card = backbone / "model.json"
    card.write_text(card.read_text().replace('"F"', '"Og"'))
    message = refused(capsys, tmp_path, f"model.backbone={backbone}", "reward.type=xtb")
    assert "Og" in message


def test_an_existing_run_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: Path) -> None:
    run = tmp_path / "kept"
    run.mkdir()
    (run / "config.yaml").write_text("mine\n")
    with pytest.raises(SystemExit) as caught:
        main(["train", *TINY, f"model.backbone={backbone}", f"save_path={run}"])
    assert caught.value.code == 2
    assert "kept exists: remove it" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in run.iterdir()] == [("config.yaml", "mine\n")]


def test_a_run_directory_that_cannot_be_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, backbone: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(["train", *TINY, f"model.backbone={backbone}", f"save_path={tmp_path / 'file' / 'run'}"])
    assert caught.value.code == 2
    assert "cannot create the run directory" in capsys.readouterr().err


def test_a_full_disk(tmp_path: Path, backbone: Path) -> None:
    # A limit on file sizes makes the write of a checkpoint fail like a full disk does: halfway, by an OSError.
    run = tmp_path / "run"
    result = subprocess.run(
        [sys.executable, "-m", "atomrl", "train", *TINY, f"model.backbone={backbone}", f"save_path={run}"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: cannot write")
    assert not list(run.glob(".*"))
    assert not list(run.glob("checkpoint*"))
