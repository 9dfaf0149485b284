"""A training from published EDM weights; see also tests/checkpoints/test_published_edm.py."""

import json
from pathlib import Path

import golden
import pytest
import torch
from published_files import published
from small_backbone import TINY

from atomrl.cli import main


def test_a_training_starts_from_the_published_weights_by_either_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = golden.load_edm("edm_qm9")
    with torch.no_grad():
        for parameter in case.network.parameters():
            parameter.mul_(0.1)  # random weights make molecules fly apart
    published(tmp_path / "edm", case, "edm_qm9")
    tiny = [word for word in TINY if not word.startswith("model.backbone")]
    short = ["--config-name", "demo", *tiny, "dataloader.epoches=1", "train.exploded_above=1e6"]
    first = {}
    for number, key in enumerate(("model.model_path", "checkpoint_path")):
        main(["train", *short, f"{key}=edm/generative_model_ema.npy", f"save_path=run{number}"])
        line = json.loads((tmp_path / f"run{number}" / "metrics.jsonl").read_text())
        first[key] = {name: value for name, value in line.items() if not name.startswith("seconds")}
    assert first["model.model_path"] == first["checkpoint_path"]
    main(["evaluate", "--trained", "run1", "-n", "2", "--time-step", "5", "reward.workers=1", "--output", "table"])
