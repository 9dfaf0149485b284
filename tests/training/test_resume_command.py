"""`atomrl resume RUN` goes on exactly as the run was; other settings are typed, or refused."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from refusals import refused
from small_backbone import TINY, write

from atomrl.checkpoints.backbone import save_backbone
from atomrl.checkpoints.stored import read_stored
from atomrl.cli import main
from atomrl.config import load_config, read_config
from atomrl.domains import model_of
from atomrl.evaluation.evaluate import drawn_by
from atomrl.library.resuming import _finished
from atomrl.networks.edm import EDMConfig, EDMNetwork

NOT_THE_DEFAULTS = ["train.learning_rate=2e-3", "seed=5", "train.ema_decay=0.5", "dataloader.each_prompt_sample=4"]
LONG = ["train.total_steps=4", "dataloader.epoches=100000"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Of a tiny training, by settings that are nobody's default."""
    return [*TINY, *NOT_THE_DEFAULTS, f"model.backbone={write(tmp_path / 'backbone')}"]


def log(run: Path) -> list[dict[str, float | None]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]


def started(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "atomrl", *words], stdout=subprocess.PIPE, text=True, env=environment
    )


def wait_for(lines: int, run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < lines:
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def done(run: Path) -> int:
    return int(torch.load(run / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"]) + 1


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_equals_one_that_was_not(how: signal.Signals, words: list[str], tmp_path: Path) -> None:
    """All that is typed to go on is the run, and how long; after Ctrl-C it is what was printed."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = started("train", *words, *LONG, f"save_path={run}")
    wait_for(2, run, process)
    process.send_signal(how)
    said, _ = process.communicate(timeout=60)
    command = ["resume", str(run)]
    if how == signal.SIGINT:
        assert process.returncode == 130
        found = re.search(r"^stopped; continue with: atomrl (.*)$", said, re.MULTILINE)
        assert found is not None
        command = shlex.split(found[1])
    last = done(run) + 2
    main([*command, f"dataloader.epoches={last}"])
    main(["train", *words, "train.total_steps=4", f"dataloader.epoches={last}", f"save_path={whole}"])
    one, other = (torch.load(place / "checkpoint_latest.pth", weights_only=True) for place in (whole, run))
    assert one["atomrl"]["iteration"] == other["atomrl"]["iteration"] == last - 1
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert log(run) == log(whole)
    assert read_config(run / "config.yaml").dataloader.epoches == last


def test_what_is_changed_is_said(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    main(
        ["train", *words, "dataloader.epoches=2", "train.scheduler=cosine", "train.warmup_steps=1", f"save_path={run}"]
    )
    main(["resume", str(run)])
    assert f"{run} has completed its 2 iterations: nothing is left to do" in capsys.readouterr().out
    assert not caplog.records
    main(["resume", "max_time_hours=2", str(run / "checkpoint_latest.pth"), "dataloader.epoches=4"])
    [said] = [record.getMessage() for record in caplog.records]
    assert said == (
        f"{run} continues with changed settings: max_time_hours=2.0, was None; dataloader.epoches=4, was 2; "
        "the learning rate follows train.scheduler=cosine over all of these iterations"
    )
    assert [line["iteration"] for line in log(run)] == [0, 1, 2, 3]
    assert log(run)[2]["lr"] > 0  # of the schedule over 4


def test_a_finished_run_gets_its_table(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    main(["train", *words, "dataloader.epoches=1", "reward.workers=1", f"save_path={run}"])
    before = (run / "metrics.jsonl").read_text()
    for samples in (2, 3):
        main(["resume", str(run), f"evaluation.samples={samples}", "evaluation.time_step=10"])
        found = json.loads((run / "evaluation" / "evaluation.json").read_text())
        assert found["columns"]["trained"]["samples"] == samples
    capsys.readouterr()
    main(["resume", str(run)])
    assert "nothing is left to do" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_text() == before


def test_a_table_of_earlier_weights_is_not_that_of_the_run(words: list[str], tmp_path: Path) -> None:
    """A run that went on, and was stopped in its second evaluation, said that nothing was left to do."""
    run = tmp_path / "run"
    main(["train", *words, "dataloader.epoches=1", f"save_path={run}"])
    config = read_config(run / "config.yaml").changed(evaluation={"samples": 2})
    weights = drawn_by(model_of(read_stored(str(run)), config)).weights
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.md").touch()
    for of_table, left in ((weights, False), ("of iteration 0", True), (None, False)):
        model = {"model": {"origin": "run", "weights": of_table}} if of_table else {}
        columns = {"trained": {"samples": 2, "command": "atomrl train", **model}}
        table = {"profile": "", "evaluator": "", "conditions": {}, "metrics": {}, "columns": columns}
        (run / "evaluation" / "evaluation.json").write_text(json.dumps(table))
        assert (_finished(run, config) is None) is left


def test_what_would_be_another_run(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    main(["train", *words, "dataloader.epoches=2", f"save_path={run}"])
    before = (run / "config.yaml").read_text()
    assert "train.learning_rate=1: atomrl resume continues a run as it is" in refused(
        capsys, "resume", str(run), "train.learning_rate=1"
    )
    assert "resume=false: atomrl resume continues" in refused(capsys, "resume", str(run), "resume=false")
    assert "dataloader.epoches=1, but the run" in refused(capsys, "resume", str(run), "dataloader.epoches=1")
    assert "continues from its checkpoint_latest.pth: give" in refused(
        capsys, "resume", str(run / "checkpoint_best.pth")
    )
    assert "edm_qm9_small is a model, not a run" in refused(capsys, "resume", "edm_qm9_small")
    assert f"{tmp_path / 'backbone'} is a model, not a run" in refused(capsys, "resume", str(tmp_path / "backbone"))
    assert "no backbone at" in refused(capsys, "resume", str(tmp_path / "nothing"))
    assert (run / "config.yaml").read_text() == before
    (run / "checkpoint_latest.pth").unlink()
    assert "has no checkpoint_latest.pth yet" in refused(capsys, "resume", str(run))


def test_settings_that_were_left_out_are_refused_and_typed_ones_said(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """`save_path=RUN resume=true` alone would continue with the defaults of the demo."""
    run = tmp_path / "run"
    main(["train", *words, "dataloader.epoches=2", f"save_path={run}"])
    left_out = [word for word in words if not word.startswith(("train.learning_rate=", "threads="))]
    line = refused(capsys, "train", *left_out, "dataloader.epoches=2", f"save_path={run}", "resume=true")
    default = load_config("demo").train.learning_rate
    assert f"train.learning_rate=0.002 (here {default})" in line
    assert "threads=1 (here None)" in line
    assert "dataloader.epoches" not in line
    assert f"`atomrl resume {run}` continues it as it is" in line
    main(["train", *words, "dataloader.epoches=3", "train.learning_rate=1e-4", f"save_path={run}", "resume=true"])
    [said] = [record.getMessage() for record in caplog.records]
    assert "dataloader.epoches=3, was 2" in said
    assert "train.learning_rate=0.0001, was 0.002" in said


def test_code_that_a_run_names_runs_if_it_is_trusted(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine.py"
    mine.write_text(
        "from pathlib import Path\n"
        "def size(structures):\n"
        f"    Path({str(tmp_path / 'ran')!r}).touch()\n"
        "    return [float(len(one)) for one in structures]\n"
    )
    own = [word for word in words if not word.startswith("reward.components=")]
    reward = f"reward.components=[{{_target_: dummy}}, {{_target_: '{mine}:size'}}]"
    main(["train", *own, reward, "dataloader.epoches=1", f"save_path={run}"])
    (tmp_path / "ran").unlink()
    line = refused(capsys, "resume", str(run), "dataloader.epoches=2")
    assert f"{mine}:size; add --trust-code" in line
    assert not (tmp_path / "ran").exists()
    main(["resume", "dataloader.epoches=2", "--trust-code", str(run)])
    assert [entry["iteration"] for entry in log(run)] == [0, 1]
    assert (tmp_path / "ran").exists()


def test_a_run_that_was_moved_goes_on_where_it_is(words: list[str], tmp_path: Path) -> None:
    main(["train", *words, "dataloader.epoches=1", f"save_path={tmp_path / 'run'}"])
    shutil.move(tmp_path / "run", tmp_path / "archive")
    main(["resume", str(tmp_path / "archive"), "dataloader.epoches=2"])
    assert len(log(tmp_path / "archive")) == 2
    assert not (tmp_path / "run").exists()


def test_a_run_whose_backbone_became_another_one_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder that model.backbone names holds another network now; it was a traceback of 60 lines."""
    run = tmp_path / "run"
    main(["train", "--config-name", "demo_fed_grpo", *words, "dataloader.epoches=1", f"save_path={run}"])
    network = EDMNetwork(EDMConfig(hidden=24, edge_hidden=8, layers=2))
    save_backbone(tmp_path / "backbone", network, {4: 2, 6: 1, 7: 1}, {})
    checkpoint = (run / "checkpoint_latest.pth").read_bytes()
    line = refused(capsys, "resume", str(run), "dataloader.epoches=2")
    assert "has shape (16, 6), the model needs (24, 6); model.backbone is not what the run began with" in line
    assert (run / "checkpoint_latest.pth").read_bytes() == checkpoint
