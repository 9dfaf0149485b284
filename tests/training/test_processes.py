"""Who is who: a stray rank is ignored, torchrun is believed, and processes that cannot find each other are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from small_backbone import TINY, write

from atomrl.config import load_config
from atomrl.training.run import train
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.processes import (
    ALONE,
    RANKS,
    Launch,
    check_one_process,
    launched,
    lightning_rank,
    one_process,
    ranks_hidden,
)

OF_LAUNCHERS = ("SLURM_", "JSM_", "LSB_", "OMPI_", "TORCHELASTIC_")
INTERACTIVE = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def clean() -> dict[str, str]:
    """This environment without what a launcher of the tests has left in it."""
    names = {*RANKS, "WORLD_SIZE"}
    return {k: v for k, v in os.environ.items() if k not in names and not k.startswith(OF_LAUNCHERS)}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - clean().keys():
        monkeypatch.delenv(name)


def atomrl(words: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atomrl", *words],
        env={**clean(), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def short_run(tmp_path: Path) -> list[str]:
    places = [f"model.backbone={write(tmp_path / 'backbone')}", f"save_path={tmp_path / 'run'}"]
    return [*TINY, *places, "dataloader.epoches=2", "log.tensorboard=true"]


def whole_log(run: Path) -> bool:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines] == [0, 1] and any((run / "tensorboard").iterdir())


RANKED = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "1"}
JOB_SCRIPT = {**INTERACTIVE, "SLURM_JOB_NAME": "training"}  # it starts the training without srun


@pytest.mark.parametrize("variables", [RANKED, {"LOCAL_RANK": ""}, JOB_SCRIPT])  # an empty one is not even a number
def test_a_training_with_stray_variables_has_its_whole_log(variables: dict[str, str], tmp_path: Path) -> None:
    """In a process that begins with them: Lightning reads them when it is imported."""
    ended = atomrl(["train", *short_run(tmp_path)], variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert whole_log(tmp_path / "run")


def test_a_pretraining_with_a_stray_rank_has_its_log(tmp_path: Path) -> None:
    shape = ["model.hidden=16", "model.edge_hidden=8", "model.layers=2", "threads=1", "val_batches=0", "log_every=1"]
    words = [*shape, f"save_path={tmp_path / 'run'}", "quality_every=0", "train.batch_size=8", "train.steps=2"]
    ended = atomrl(["pretrain", "edm", *words], {"SLURM_PROCID": "2"})
    assert ended.returncode == 0, ended.stderr
    [table] = (tmp_path / "run" / "log").rglob("metrics.csv")
    assert len(table.read_text().splitlines()) >= 2


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({"RANK": "3"}, 3),
        ({"SLURM_PROCID": "2", "SLURM_LOCALID": "2"}, 2),
        ({"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_LOCAL_RANK": "1"}, 1),
        ({**INTERACTIVE, "SLURM_JOB_NAME": "interactive"}, 0),
    ],
)
def test_a_training_in_a_program_whose_rank_is_stray(
    variables: dict[str, str], rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning read the rank when the program imported it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    train(load_config("demo", short_run(tmp_path)), "demo")
    assert whole_log(tmp_path / "run")
    assert rank_zero_only.rank == rank  # the program's own affair


def test_a_program_of_processes_that_cannot_find_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"WORLD_SIZE=2, but RANK, LOCAL_RANK, .* not set: start .* with torchrun"):
        train(load_config("demo", short_run(tmp_path)), "demo")
    assert not (tmp_path / "run").exists()


STEP = {**INTERACTIVE, "SLURM_STEP_NUM_TASKS": "4"}
SEVERAL = {
    "torchrun": ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2"),
    "mpirun": ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2"),
    "jsrun": ({"JSM_NAMESPACE_SIZE": "2"}, "JSM_NAMESPACE_SIZE=2"),
    "srun": ({**STEP, "SLURM_JOB_NAME": "training"}, "SLURM_STEP_NUM_TASKS=4"),
    "srun, another task": ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, "SLURM_NTASKS=4"),
    "srun in a shell": ({**STEP, "SLURM_PROCID": "2", "SLURM_JOB_NAME": "bash"}, "SLURM_STEP_NUM_TASKS=4"),
}


@pytest.mark.parametrize(("variables", "named"), SEVERAL.values(), ids=SEVERAL.keys())
def test_one_of_several_processes(variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for asked in (launched, check_one_process):
        with pytest.raises(UserError) as caught:
            asked()
        assert str(caught.value).startswith(named)
        assert "torchrun" in str(caught.value)


BY_ITSELF = {
    "no launcher": {},
    "sizes of one": {"WORLD_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "1", "JSM_NAMESPACE_SIZE": "1", "SLURM_NTASKS": "1"},
    "a step of one task": {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    "a job script": {**INTERACTIVE, "SLURM_JOB_NAME": "training"},
    "salloc": {**INTERACTIVE, "SLURM_JOB_NAME": "interactive"},
    "srun --pty bash": {**STEP, "SLURM_JOB_NAME": "bash"},
    "srun --pty of another shell": {**STEP, "SLURM_JOB_NAME": "zsh", "SLURM_PTY_PORT": "40000"},
    "a rank only": {"RANK": "3", "LOCAL_RANK": "3", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"},
}


@pytest.mark.parametrize("variables", BY_ITSELF.values(), ids=BY_ITSELF.keys())
def test_one_process_alone(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched() == ALONE
    with one_process():
        assert rank_zero_only.rank == 0


TWO_HOSTS = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}


def test_torchrun_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where srun started it on each of two hosts, or several times on one, each for itself."""
    for name, value in {**TWO_HOSTS, **STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched() == Launch(5, 8, 1, 4)
    with lightning_rank(5):
        assert rank_zero_only.rank == 5
    with pytest.raises(UserError, match="WORLD_SIZE=8: a pre-training is one process"):
        check_one_process()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() == ALONE
    check_one_process()


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", "8"), ("RANK", "-1"), ("LOCAL_RANK", "4"), ("LOCAL_WORLD_SIZE", "9"), ("RANK", "two")]
)
def test_numbers_that_cannot_be(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, text in {**TWO_HOSTS, name: value}.items():
        monkeypatch.setenv(key, text)
    with pytest.raises(UserError, match=f"{name}={value}.*: these cannot be numbers of processes"):
        launched()


def test_the_processes_of_a_host_share_its_workers() -> None:
    """All of them, and nobody has none."""
    shares = [Launch(rank, 6, rank % 3, 3).share(8) for rank in range(6)]
    assert shares == [3, 3, 2, 3, 3, 2]
    assert Launch(1, 2, 1, 2).share(1) == 1
    assert ALONE.share(8) == 8


@pytest.mark.parametrize(("gpus", "expected"), [(0, "cpu"), (2, "cuda:1"), (4, "cuda:1"), (1, None)])
def test_each_process_has_a_gpu_of_its_own(gpus: int, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    launch = Launch(3, 4, 1, 2)
    assert choose_device("cpu", launch) == torch.device("cpu")
    if expected is None:
        with pytest.raises(UserError, match="2 processes on a host with 1 GPU: start one for each GPU"):
            choose_device("auto", launch)
    else:
        assert choose_device("auto", launch) == torch.device(expected)


def test_ranks_are_hidden_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with ranks_hidden():
        assert "RANK" not in os.environ
    assert os.environ["RANK"] == "3"
    assert "LOCAL_RANK" not in os.environ
