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

from atomrl.config import load_config
from atomrl.training.callbacks import Checkpoints
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write
from test_train_crystals import TINY as TINY_CRYSTALS
from test_train_crystals import backbone, known_set

from studies.steps import TrainedRun

CRYSTALS, CRYSTALS_BY_NFT = "experiment/prototypes/rl_dng_grpo", "experiment/prototypes/rl_dng"
FRESH = "reward.components=[{_target_: atomrl.rewards.fresh_formula.FreshFormulaReward}]"


def overrides(tmp_path: Path, name: str, *more: str) -> list[str]:
    return [*TINY, f"model.backbone={tmp_path / 'backbone'}", f"save_path={tmp_path / name}", *more]


def crystal_overrides(tmp_path: Path, name: str, *more: str) -> list[str]:
    """With a reward that remembers what the run has drawn."""
    places = [f"model.backbone={tmp_path / 'backbone'}", f"reward.reference_dataset={tmp_path / 'known'}"]
    return [*TINY_CRYSTALS, *places, FRESH, "dataloader.epoches=4", f"save_path={tmp_path / name}", *more]


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


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("demo", ()),
        ("demo", ("train.nft.old_decay_rate=0.3",)),  # what samples is then part of the checkpoint
        ("demo", ("train.objective=awm", "train.awm.old_decay_rate=0.3", "train.num_inner_batch=2")),
        ("demo_fed_grpo", ("train.train_steps=4",)),
        ("demo", ("validation.every=2",)),
        (CRYSTALS, ("validation.every=2",)),
        (CRYSTALS_BY_NFT, ("train.objective=nft",)),  # TINY_CRYSTALS says grpo
    ],
)
def test_killed_and_resumed_equals_uninterrupted(name: str, more: tuple[str, ...], tmp_path: Path) -> None:
    crystals = name in (CRYSTALS, CRYSTALS_BY_NFT)
    words = crystal_overrides if crystals else overrides
    if crystals:
        backbone(tmp_path / "backbone")
        known_set(tmp_path / "known")
    else:
        write(tmp_path / "backbone")
    whole = train(load_config(name, words(tmp_path, "whole", *more)), "demo")

    long = words(tmp_path, "killed", "dataloader.epoches=1000", "train.total_steps=4", *more)
    process = command(["--config-name", name, *long])
    wait_for(2, tmp_path / "killed" / "metrics.jsonl", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = torch.load(tmp_path / "killed" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"]
    last = max(4, done + 2)

    resumed = train(
        load_config(
            name,
            words(tmp_path, "killed", "resume=true", f"dataloader.epoches={last}", "train.total_steps=4", *more),
        ),
        "demo",
    )
    if last != 4:
        whole = train(
            load_config(name, words(tmp_path, "longer", f"dataloader.epoches={last}", "train.total_steps=4", *more)),
            "demo",
        )
    one, other = (torch.load(run / "checkpoint_latest.pth", weights_only=True) for run in (whole, resumed))
    assert one["atomrl"]["iteration"] == other["atomrl"]["iteration"] == last - 1
    for tensor, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][tensor]), tensor
    assert one.get("reward_memory") == other.get("reward_memory")
    assert ("reward_memory" in one) == crystals
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


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    write(tmp_path / "backbone")
    process = command(overrides(tmp_path, "run", "dataloader.epoches=1000"))
    wait_for(2, tmp_path / "run" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not list((tmp_path / "run").glob(".*"))  # nothing half-written
    done = torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"]
    train(load_config("demo", overrides(tmp_path, "run", "resume=true", f"dataloader.epoches={done + 2}")), "demo")
