"""Several processes train together, as one would; what ends one of them ends all, and is said once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_backbone import TINY, write
from test_train_crystals import TINY as CRYSTALS
from test_train_crystals import backbone, known_set

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.training.run import train

HERE = Path(__file__).parent
RUN_ELIGN, FAULT = HERE.parents[1] / "run_elign.py", HERE / "rank_with_fault.py"
EXAMPLE = HERE.parents[1] / "examples" / "several_processes.slurm"
QUIET = ["log.tensorboard=false", "train.rank_timeout=60"]


def torchrun(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Two processes, as the documents start them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


def short_run(folder: Path, *more: str) -> list[str]:
    """Words of a run in a folder."""
    if not (folder / "backbone").exists():
        write(folder / "backbone")
    return [*TINY, *QUIET, f"model.backbone={folder / 'backbone'}", *more]


def errors(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """What the processes said was wrong."""
    return [line for line in ended.stderr.splitlines() if line.startswith(("error: ", "interrupted"))]


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """Stopped, continued, evaluated: the numbers and weights of one process, and one log."""
    # of the samples of one SMILES only the best teaches, wherever it was drawn
    settings = ["filters.enable_filtering=true", "filters.enable_penalty=true", "log.rdkit=true", "log.csv=true"]
    settings += ["validation.every=2"]
    words = short_run(tmp_path, *settings, "train.learning_rate=1e-5", "dataloader.micro_batch_size=3")
    save = f"save_path={tmp_path / 'two'}"
    begun = torchrun(RUN_ELIGN, *words, save, "dataloader.epoches=2", "train.total_steps=3")
    assert (begun.returncode, errors(begun)) == (0, []), begun.stderr
    more = [save, "dataloader.epoches=3", "train.total_steps=3", "resume=true", "evaluation.samples=3"]
    ended = torchrun(RUN_ELIGN, *words, *more, "evaluation.time_step=10")
    assert (ended.returncode, errors(ended)) == (0, []), ended.stderr
    assert begun.stdout.count("2 processes, 2 iterations") == ended.stdout.count("2 processes, 1 iterations") == 1
    assert (tmp_path / "two" / "evaluation" / "evaluation.md").is_file()
    one = train(load_config("demo", [*words, f"save_path={tmp_path / 'one'}", "dataloader.epoches=3"]), "one")
    pairs = list(zip(lines(one), lines(tmp_path / "two"), strict=True))
    assert [line["iteration"] for _, line in pairs] == [0, 1, 2]
    for expected, found in pairs:
        assert expected.keys() == found.keys()
        for name in expected.keys() - {name for name in expected if name.startswith("seconds")}:
            assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    states = [torch.load(run / "checkpoint_latest.pth", weights_only=True) for run in (one, tmp_path / "two")]
    for name, value in states[0]["state_dict"].items():
        assert float((value - states[1]["state_dict"][name]).abs().max()) < 1e-6, name


def test_two_processes_remember_the_same(tmp_path: Path) -> None:
    """Crystals, whose reward counts the formulas of all samples of the run: the numbers of one process."""
    places = [f"model.backbone={backbone(tmp_path / 'backbone')}", f"reward.reference_dataset={tmp_path / 'known'}"]
    known_set(tmp_path / "known")
    fresh = "reward.components=[{_target_: atomrl.rewards.fresh_formula.FreshFormulaReward}]"
    words = ["experiment=prototypes/rl_dng_grpo", *CRYSTALS, *places, fresh, "validation.every=2", QUIET[1]]
    ended = torchrun(RUN_ELIGN, *words, f"save_path={tmp_path / 'two'}")
    assert (ended.returncode, errors(ended)) == (0, []), ended.stderr
    main(["train", *words, f"save_path={tmp_path / 'one'}"])
    memories = [torch.load(tmp_path / run / "checkpoint_latest.pth", weights_only=True) for run in ("one", "two")]
    assert memories[0]["reward_memory"] == memories[1]["reward_memory"] != {"drawn_before": {}}
    for expected, found in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        for name in ("drawn_before", "raw_fresh_formula", "val/reward", "val/fresh_formula"):
            assert found.get(name, 0) == pytest.approx(expected.get(name, 0), rel=1e-5), name


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("nan", 1, "error: the loss of sample "),
        ("dies", 1, "error: rank 1 died without a message"),
        ("hangs", 1, "error: rank 1 did not answer for 3 s (train.rank_timeout)"),
        ("SIGINT", 130, "interrupted"),
    ],
)
def test_what_ends_one_process_ends_all(fault: str, code: int, said: str, tmp_path: Path) -> None:
    words = short_run(tmp_path, f"save_path={tmp_path / 'run'}", "save_every=10")
    ended = torchrun(FAULT, f"1:{fault}", *words, f"train.rank_timeout={3 if fault == 'hangs' else 600}")
    assert time.time() - (tmp_path / "run" / "metrics.jsonl").stat().st_mtime < 30  # since the first iteration's end
    assert ended.returncode != 0
    found = errors(ended)
    assert any(line.startswith(said) for line in found), ended.stderr
    assert len(found) <= 2, found  # rank 0 may repeat what another one says
    assert f"exitcode  : {code}" in ended.stderr or fault == "dies"
    assert (tmp_path / "run" / "nonfinite_loss.pt").is_file() == (fault == "nan")
    saved = torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)
    assert saved["atomrl"]["iteration"] == 0  # rank 0 saves what it has


@pytest.mark.parametrize(("fault", "codes"), [("1:nan", [1, 1]), ("0:nan", [1, 1]), ("0:dies", [-signal.SIGKILL, 1])])
def test_processes_that_nobody_looks_after(fault: str, codes: list[int], tmp_path: Path) -> None:
    """Without torchrun rank 0 keeps the store where they meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = short_run(tmp_path, f"save_path={tmp_path / 'run'}")
    started = [
        subprocess.Popen(
            [sys.executable, str(FAULT), fault, *words],
            env={**os.environ, **places, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=250)[1] for process in started]
    assert [process.returncode for process in started] == codes, said
    told = [line for text in said for line in text.splitlines() if line.startswith("error: ")]
    assert 1 <= len(told) <= 2, said  # rank 0 may repeat what the other one says
    assert ("without a message" in told[0]) == fault.endswith("dies")


def test_the_example_for_slurm(tmp_path: Path) -> None:
    """With a Slurm of one node that runs at once whatever it is asked to."""
    for name, text in (("scontrol", "echo localhost"), ("srun", 'shift; exec "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "torchrun").write_text(f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    job = {"SLURM_NNODES": "1", "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost"}
    task = {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    ended = subprocess.run(
        ["bash", str(EXAMPLE), *short_run(tmp_path, f"save_path={tmp_path / 'run'}", "dataloader.epoches=2")],
        env={**os.environ, **job, **task, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, errors(ended)) == (0, []), ended.stderr
    assert "2 processes, 2 iterations" in ended.stdout
    assert [line["iteration"] for line in lines(tmp_path / "run")] == [0, 1]


def test_sigterm_of_one_process_stops_all_after_the_iteration(tmp_path: Path) -> None:
    ended = torchrun(FAULT, "1:SIGTERM", *short_run(tmp_path, f"save_path={tmp_path / 'run'}", "save_every=10"))
    assert ended.stdout.count("stopped; continue with: torchrun [its options as before] -m atomrl resume ") == 1
    assert errors(ended) == []
    assert "exitcode  : 143" in ended.stderr
    assert [line["iteration"] for line in lines(tmp_path / "run")] == [0, 1]
    saved = torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)
    assert saved["atomrl"]["iteration"] == 1


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_torchrun_may_be_stopped(asked: signal.Signals, tmp_path: Path, ctrl_c: None) -> None:
    """Ctrl-C in the terminal, or a batch system."""
    words = short_run(tmp_path, f"save_path={tmp_path / 'run'}", "dataloader.epoches=100000", "save_every=100000")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(RUN_ELIGN)]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert started.poll() is None
            time.sleep(0.1)
        os.kill(started.pid, asked)
        said, complaints = started.communicate(timeout=250)
    assert said.count("stopped; continue with: torchrun [its options as before] -m atomrl resume ") == 1, complaints
    assert (tmp_path / "run" / "checkpoint_latest.pth").is_file()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=0", "run exists: remove it, or give another save_path"),  # rank 0 alone sees it, the others wait
        ("dataloader.epochs=3", "unknown configuration key dataloader.epochs"),
        ("dataloader.sample_group_size=3", "dataloader.sample_group_size=3 cannot be dealt evenly to 2 processes"),
    ],
)
def test_a_mistake_is_told_once(word: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    ended = torchrun(RUN_ELIGN, *short_run(tmp_path, f"save_path={tmp_path / 'run'}", word))
    own = [line for line in errors(ended) if "ended the run" not in line]
    assert len(own) == 1, ended.stderr
    assert said in own[0]
    assert "exitcode  : 2" in ended.stderr
