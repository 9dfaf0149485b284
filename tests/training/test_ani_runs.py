"""A training that ANI-1x rewards; see also tests/force_fields/test_ani.py."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torchani", reason="the extra ani is not installed: pip install 'atomrl[ani]'")

from ase.build import molecule
from ase.io import write
from small_backbone import TINY

from atomrl.cli import main

NAMES = ["CH4", "NH3", "H2O", "CH3OH", "C2H6", "H3CNH2", "H2CO", "HCN"]
LEARNED = [
    *("model.hidden=32", "model.edge_hidden=16", "model.layers=2", "train.steps=400", "train.warmup=10"),
    *("train.batch_size=8", "train.lr=3e-3", "train.ema_decay=0.9", "held_out=0", "quality_every=0", "threads=1"),
]
"""Enough for molecules that do not fly apart."""


def test_a_model_without_fluorine_trains(tmp_path: Path) -> None:
    """By its forces and by energies above those of its own atoms."""
    data, backbone, run = (tmp_path / name for name in ("small.extxyz", "backbone", "run"))
    write(data, [molecule(name) for name in NAMES])
    main(["pretrain", "edm", f"data={data}", f"save_path={backbone}", *LEARNED])
    words = [*TINY, "reward.type=ani", "reward.energy_atom_refs=own", "dataloader.epoches=2", "model.time_step=20"]
    main(["train", "--config-name", "demo_fed_grpo", *words, f"model.backbone={backbone}", f"save_path={run}"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(line["force_reward_mean"] < 0 and math.isfinite(line["energy_reward_mean"]) for line in lines)
    assert all(line["grad_norm"] > 0 for line in lines)
