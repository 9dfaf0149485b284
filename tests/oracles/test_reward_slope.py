"""On the shipped weights the reward of a short run rises: the one test in which everything real learns together."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress

from atomrl.config import load_config
from atomrl.training.run import train

# The demo's experiment, but for counts that let one core finish in two minutes: a short walk (20 steps), and 128
# molecules of equal size per iteration, since what varies with the size would hide the slope.
SHORT = [
    "model.time_step=20",
    "dataloader.epoches=12",
    "dataloader.sample_group_size=4",
    "dataloader.each_prompt_sample=32",
    "dataloader.micro_batch_size=128",
    "dataloader.nodes_dist_focus_min=12",
    "dataloader.nodes_dist_focus_max=12",
    "dataloader.nodes_dist_focus_multiplier=1e12",
    "train.train_steps=6",
    "train.kl_penalty_weight=0.1",  # on so short a walk the demo's 0.02 lets the model drift
    "train.warmup_steps=2",
    "threads=1",
    "log.rdkit=false",
    "log.tensorboard=false",
    "evaluation.samples=0",
]


@pytest.mark.timeout(600)
def test_the_reward_rises(tmp_path: Path) -> None:
    folder = train(load_config("demo", [*SHORT, f"save_path={tmp_path / 'run'}"]), "demo")
    rewards = [json.loads(line)["reward"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rewards) == 12
    fit = linregress(np.arange(len(rewards)), rewards, alternative="greater")
    assert fit.slope > 0, rewards
    assert fit.pvalue < 0.01, rewards
