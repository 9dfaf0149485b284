"""A run that is killed and resumed equals one that was never interrupted, bit for bit on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.training.callbacks import Checkpoints
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write

from studies.steps import TrainedRun


def overrides(tmp_path: Path, name: str, *more: str) -> list[str]:
    return [*TINY, f"model.backbone={tmp_path / 'backbone'}", f"save_path={tmp_path / name}", *more]


def command(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "atomrl", "train", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def log(run: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def wait_for(lines: int, path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < lines:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    write(tmp_path / "backbone")
    whole = train(load_config("demo", overrides(tmp_path, "whole")), "demo")

    long = overrides(tmp_path, "killed", "dataloader.epoches=1000", "train.total_steps=4")
    process = command(long)
    wait_for(2, tmp_path / "killed" / "metrics.jsonl", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = torch.load(tmp_path / "killed" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"]
    last = max(4, done + 2)

    resumed = train(
        load_config(
            "demo", overrides(tmp_path, "killed", "resume=true", f"dataloader.epoches={last}", "train.total_steps=4")
        ),
        "demo",
    )
    if last != 4:
        whole = train(
            load_config("demo", overrides(tmp_path, "longer", f"dataloader.epoches={last}", "train.total_steps=4")),
            "demo",
        )
    one, other = (torch.load(run / "checkpoint_latest.pth", weights_only=True) for run in (whole, resumed))
    assert one["atomrl"]["iteration"] == other["atomrl"]["iteration"] == last - 1
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    logs = [log(run) for run in (whole, resumed)]
    assert [row["iteration"] for row in logs[1]] == list(range(last))
    for a, b in zip(*logs, strict=True):
        assert {k: v for k, v in a.items() if "seconds" not in k} == {k: v for k, v in b.items() if "seconds" not in k}


@pytest.mark.parametrize("more", [0, 1])
def test_a_kill_between_a_checkpoint_and_its_log_line(
    more: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed run makes up for the line, be there something left to do or not."""
    write(tmp_path / "backbone")
    honest = Checkpoints.on_train_epoch_end

    def killed_after(self: Checkpoints, trainer, pl_module) -> None:
        honest(self, trainer, pl_module)
        if trainer.current_epoch == 1:
            raise OSError("killed")

    folder, last = tmp_path / "run", 2 + more
    schedule = "train.total_steps=3"
    whole = train(load_config("demo", overrides(tmp_path, "whole", schedule, f"dataloader.epoches={last}")), "demo")
    broken = load_config("demo", overrides(tmp_path, "run", schedule, "dataloader.epoches=2"))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "on_train_epoch_end", killed_after)
        with pytest.raises(OSError, match="killed"):
            train(broken, "demo")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert not TrainedRun(folder, last, evaluated=False).whole()
    rest = [schedule, "resume=true", f"dataloader.epoches={last}"]
    train(load_config("demo", overrides(tmp_path, "run", *rest)), "demo")
    assert [row["iteration"] for row in log(folder)] == list(range(last))
    for found, expected in zip(log(folder), log(whole), strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert "seconds" in name or found[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert TrainedRun(folder, last, evaluated=False).whole()


def test_ctrl_c_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    write(tmp_path / "backbone")
    process = command(overrides(tmp_path, "run", "dataloader.epoches=1000"))
    wait_for(2, tmp_path / "run" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not list((tmp_path / "run").glob(".*"))  # nothing half-written
    done = torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"]
    train(load_config("demo", overrides(tmp_path, "run", "resume=true", f"dataloader.epoches={done + 2}")), "demo")


def optimizer_of(run: Path) -> dict[str, float]:
    """Hyperparameters of the one parameter group in a run's latest checkpoint."""
    saved = torch.load(run / "checkpoint_latest.pth", weights_only=True)["optimizer_states"][0]
    [group] = saved["param_groups"]
    return {name: value for name, value in group.items() if name != "params"}


CONSTANT = ("train.scheduler=constant", "train.warmup_steps=1", "train.total_steps=null")


def test_a_resumed_run_takes_what_it_says_it_takes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rate, decay and betas of the new configuration, from the first new iteration."""
    write(tmp_path / "backbone")
    changed = ("train.learning_rate=3e-3", "train.weight_decay=0.5", "train.beta1=0.5", "train.beta2=0.9")
    for name in ("same", "other"):
        train(load_config("demo", overrides(tmp_path, name, *CONSTANT, "dataloader.epoches=2")), "demo")
    more = (*CONSTANT, "dataloader.epoches=3", "resume=true")
    same = train(load_config("demo", overrides(tmp_path, "same", *more)), "demo")
    other = train(load_config("demo", overrides(tmp_path, "other", *more, *changed)), "demo")
    assert "train.learning_rate=0.003, was" in caplog.text
    kept, taken = optimizer_of(same), optimizer_of(other)
    assert (taken["lr"], taken["initial_lr"], taken["weight_decay"]) == (3e-3, 3e-3, 0.5)
    assert tuple(taken["betas"]) == (0.5, 0.9)
    assert (kept["lr"], tuple(kept["betas"])) == (1e-3, (0.9, 0.999))
    assert [row["lr"] for row in log(other)] == pytest.approx([1e-3, 1e-3, 3e-3])
    moved = [torch.load(run / "checkpoint_latest.pth", weights_only=True)["state_dict"] for run in (same, other)]
    names = [name for name in moved[0] if name.startswith("policy.current") and moved[0][name].is_floating_point()]
    assert any(not torch.equal(moved[0][name], moved[1][name]) for name in names)


@pytest.mark.parametrize("scheduler", ["cosine", "wsd"])
@pytest.mark.parametrize("warmup", [1, 3])
def test_a_lengthened_run_has_the_new_schedules_rate_at_once(scheduler: str, warmup: int, tmp_path: Path) -> None:
    write(tmp_path / "backbone")
    words = [f"train.scheduler={scheduler}", f"train.warmup_steps={warmup}", "train.total_steps=null"]
    whole = train(load_config("demo", overrides(tmp_path, "whole", *words, "dataloader.epoches=6")), "demo")
    train(load_config("demo", overrides(tmp_path, "longer", *words, "dataloader.epoches=3")), "demo")
    more = [*words, "dataloader.epoches=6", "resume=true"]
    longer = train(load_config("demo", overrides(tmp_path, "longer", *more)), "demo")
    assert [row["lr"] for row in log(longer)][3:] == [row["lr"] for row in log(whole)][3:]
    assert log(longer)[3]["lr"] > 0


@pytest.mark.parametrize(
    "left_behind",
    [{"RANK": "3"}, {"LOCAL_RANK": "3"}, {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}],
    ids=lambda variables: next(iter(variables)),
)
def test_a_stray_rank_costs_nothing(left_behind: dict[str, str], tmp_path: Path) -> None:
    """Of a shell in a batch job, or of an earlier launch: this process is the only one, and its log is whole."""
    write(tmp_path / "backbone")
    words = overrides(tmp_path, "run", "dataloader.epoches=1", "log.tensorboard=true")
    done = subprocess.run(
        [sys.executable, "-m", "atomrl", "train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **left_behind},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [row["iteration"] for row in log(tmp_path / "run")] == [0]
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_several_processes_are_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, "4")
    with pytest.raises(SystemExit) as caught:
        main(["train", f"save_path={tmp_path / 'run'}"])
    assert caught.value.code == 2
    assert f"{variable}=4: a training is one process" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
