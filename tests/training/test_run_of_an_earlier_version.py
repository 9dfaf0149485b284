"""A run directory and a checkpoint that version 0.1.0 wrote, before the core was rebuilt, go on and are judged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_backbone import TINY

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.training.rl_module import RLModule
from atomrl.training.run import train

KEPT = Path(__file__).parents[1] / "data" / "run_of_0.1.0"
GOES_ON = ["model.backbone=backbone", "save_path=run", "dataloader.epoches=4", "train.total_steps=4", "resume=true"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(KEPT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_goes_on_as_that_version_went_on(here: Path) -> None:
    """The same numbers in every line, but for what is new."""
    train(load_config("demo_fed_grpo", [*TINY, "train.train_steps=4", *GOES_ON]), "demo")
    lines, expected = (
        [json.loads(line) for line in (here / name).read_text().splitlines()]
        for name in ("run/metrics.jsonl", "metrics_after_4.jsonl")
    )
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    for line, old in zip(lines, expected, strict=True):
        assert {key: value for key, value in old.items() if "seconds" not in key} == {
            key: value for key, value in line.items() if key in old and "seconds" not in key
        }


def test_its_checkpoint_is_loaded_and_judged(here: Path) -> None:
    module = RLModule.load_from_checkpoint(here / "run")
    try:
        stored = torch.load(here / "run" / "checkpoint_latest.pth", weights_only=True)["state_dict"]
        assert stored.keys() == module.state_dict().keys()
    finally:
        module.close()
    words = ["--num-molecules", "4", "--time-step", "5", "--output", "table"]
    main(["evaluate", "--base", "backbone", "--trained", "run", *words])
    assert (here / "table" / "evaluation.json").is_file()
