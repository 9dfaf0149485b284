"""Several passes over a rollout: ratios move away from 1, and the log says how many were clipped."""

import json
from pathlib import Path

from small_backbone import TINY

from atomrl.cli import main

SHIPPED = ["dataloader.each_prompt_sample=4", "dataloader.epoches=1", "train.num_inner_batch=1", "train.warmup_steps=0"]


def first_iteration(folder: Path, *words: str) -> dict[str, float]:
    """What the log says of one iteration of the shipped model, two groups of four."""
    main(["train", "--config-name", "demo_fed_grpo", *TINY, *SHIPPED, *words, f"save_path={folder}"])
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    found: dict[str, float] = json.loads(line)
    return found


def test_ratios_move_with_the_second_pass(tmp_path: Path) -> None:
    """One step on all transitions meets the policy that sampled, a second one does not; a narrow range clips more."""
    once = first_iteration(tmp_path / "once")
    assert once["max_abs_log_ratio"] < 1e-3
    assert once["clip_frac"] == 0
    slowly = ["train.epoch_per_rollout=2", "train.learning_rate=1e-5"]
    twice, narrow = (
        first_iteration(tmp_path / name, *slowly, f"train.clip_range={width}")
        for name, width in (("twice", 10.0), ("narrow", 0.01))
    )
    assert twice["max_abs_log_ratio"] > 10 * max(once["max_abs_log_ratio"], 1e-3)
    assert narrow["clip_frac"] > twice["clip_frac"]
