"""A published YAML's learning rates, as a run logs them."""

import json
from math import cos, pi
from pathlib import Path

import pytest
from small_backbone import TINY, write

from atomrl.cli import main

NESTED = "{name: wsd, warmup_steps: 2, total_steps: 10, min_lr_ratio: 0.1, num_cycles: 0.5, stable_ratio: 0.5}"


@pytest.mark.parametrize("typed", [False, True])
def test_a_published_wsd_falls_by_half_a_cosine(typed: bool, tmp_path: Path) -> None:
    """Two iterations of warm-up, four at the peak, then a cosine over the last half of the other eight."""
    nested = "wsd" if typed else NESTED
    (tmp_path / "mine.yaml").write_text(f"train: {{scheduler: {nested}}}\n")
    words = [*TINY, *([f"train.scheduler={NESTED}"] if typed else []), f"model.backbone={write(tmp_path / 'net')}"]
    run = tmp_path / "run"
    where = ["--config-dir", str(tmp_path), "--config-name", "mine"]
    main(["train", *where, *words, "dataloader.epoches=10", "model.time_step=2", f"save_path={run}"])
    logged = [json.loads(line)["lr"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    falling = [0.1 + 0.9 * (1 + cos(pi * place / 4)) / 2 for place in range(4)]
    assert logged == pytest.approx([1e-3 * factor for factor in (0.5, 1, 1, 1, 1, 1, *falling)])
