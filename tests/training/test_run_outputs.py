"""What a run leaves behind: the best checkpoint, the averaged weights as a file, metrics as CSV."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from atomrl.config import load_config
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write

STOPPED = [
    "dataloader.epoches=9",
    "save_every=5",
    "log.csv=true",
    "train.scheduler=constant",
    "train.warmup_steps=4",
    # The rate rises during the warm-up, so that of two iterations the first is best whatever their samples are, and
    # no rate is better than the last by 1: the run stops after the second.
    "best_checkpoint_metric=lr",
    "best_checkpoint_mode=min",
    "early_stop_metric=lr",
    "early_stop_minutes=0",
    "early_stop_delta=1",
]


def test_what_a_run_leaves_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two iterations of nine, stopped early."""
    backbone = write(tmp_path / "backbone")
    words = [*TINY, f"model.backbone={backbone}", f"save_path={tmp_path / 'run'}", *STOPPED]
    folder = train(load_config("demo", words), "demo")
    said = capsys.readouterr().out
    assert re.search(r"^first iteration: .* s, including the start-up; 8 left$", said, re.MULTILINE)
    assert re.search(r"^[\d:]{8} 2 of 9: reward .*; .* s each, .* left$", said, re.MULTILINE)
    assert "early_stop_metric=lr" not in said
    assert "lr has not improved for 0.0 minutes: stopping" in said
    assert "2 of 9 iterations done" in said
    assert "best iteration: 0, lr=0.00025\n" in said  # as the line of metrics.jsonl is called
    for name in ("checkpoint_latest.pth", "checkpoint_best.pth", "metrics.jsonl", "csv"):
        assert f"\n  {folder / name} " in said
    assert f"{folder / 'tensorboard'}" not in said
    assert said.endswith(
        f"next:\n  atomrl evaluate --base {backbone} --trained {folder} --output {folder / 'evaluation'}\n"
        f"  atomrl sample --backbone {folder} --output {folder}.extxyz\n"
    )

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == pytest.approx([0.25e-3, 0.5e-3])
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [line["iteration"] for line in lines] == [0, 1]
    assert len(rows) == 2
    for row, line in zip(rows, lines, strict=True):
        assert {name: float(row[name]) for name in line} == pytest.approx(line)

    best, latest = (torch.load(folder / f"checkpoint_{name}.pth", weights_only=True) for name in ("best", "latest"))
    assert (best["atomrl"]["iteration"], latest["atomrl"]["iteration"]) == (0, 1)
    weights = torch.load(folder / "generative_model_ema.npy", weights_only=True)
    moved = 0.0
    for name, value in weights.items():
        first, second = (each["state_dict"][f"policy.current.{name}"] for each in (best, latest))
        assert torch.equal(value, first), name  # the average of one
        averaged = latest["state_dict"][f"averaged.module.{name}"]
        torch.testing.assert_close(averaged, torch.lerp(first, second, 1 - 2 / 11))  # the decay warms up
        moved = max(moved, float((second - first).abs().max()))
    assert moved > 0
    assert len(weights) == sum(name.startswith("policy.current.") for name in latest["state_dict"])
