"""DDIM with eta 0: its steps have no spread, so that objectives without log-probabilities alone can train."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.training.rl_module import RLModule
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from test_train_crystals import TINY, backbone

ETA_0 = ["model.sampler=ddim", "model.eta=0", "model.time_step=5"]
FORWARD = ["train.objective=nft", "train.advantages=sum"]


@pytest.mark.parametrize("objective", ["nft", "awm", "rejection"])
def test_a_forward_process_trains(objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights move, and nothing is recorded of the walk; a sample is a function of its first noise."""
    options = [*TINY, *ETA_0, f"model.backbone={backbone(tmp_path / 'backbone')}", "reward.type=dummy"]
    options += ["train.num_inner_batch=4"]
    run = tmp_path / "run"
    main(["train", "experiment=prototypes/rl_dng", *options, f"train.objective={objective}", f"save_path={run}"])
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(logged) == 2
    assert all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in logged)
    loaded = RLModule.load_from_checkpoint(run)
    try:
        assert not any(step.trainable for step in loaded.policy.transitions(5))
        drawn, trajectory = loaded.rollout(loaded.plan.prompts(0))
        again, _ = loaded.rollout(loaded.plan.prompts(0))
        assert trajectory.trained == ()
        assert torch.equal(drawn.structures.positions, again.structures.positions)
    finally:
        loaded.close()
    words = ["--base", str(tmp_path / "backbone"), "--trained", str(run), "--output", str(tmp_path / "table")]
    words += ["reward.type=reinforce"]  # the dummy has no total to choose by
    said = refused(capsys, "evaluate", *words, "--steer", "2")
    assert "in a walk without noise they would stay copies: set model.eta above 0, or take the best of N" in said
    assert not (tmp_path / "table" / "unfinished").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["train.objective=grpo"], "model.eta=0: DDIM's steps have no spread, hence no log-probability that "
         "train.objective=grpo could learn from; raise model.eta (1 is usual), or set train.objective to nft, awm or "
         "rejection, which need none"),
        (["train.objective=fed_grpo"], "train.objective=fed_grpo could learn from"),
        ([*FORWARD, "train.max_behaviour_kl=0.1"], "raise model.eta, or set train.max_behaviour_kl=null"),
        ([*FORWARD, "model.share_initial_noise=true"], "makes all samples of a group the same"),
    ],
)  # fmt: skip
def test_what_needs_a_spread_is_refused(options: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("experiment/prototypes/rl_dng", [*ETA_0, *options])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_of_the_users_own_that_needs_the_walk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(
        "from atomrl.core.objectives.grpo import GRPO, GRPOConfig\n"
        "def mine(channel_weights):\n    return GRPO(GRPOConfig(channel_weights=channel_weights))\n"
    )
    options = [*TINY, *ETA_0, f"model.backbone={backbone(tmp_path / 'backbone')}", "reward.type=dummy"]
    own = f"train.objective={{_target_: {tmp_path}/mine.py:mine}}"
    with pytest.raises(SystemExit) as caught:
        main(["train", "experiment=prototypes/rl_dng_grpo", *options, own, f"save_path={tmp_path / 'run'}"])
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: none of 5 transitions is trained: ")
    assert said.endswith("with model.sampler=ddim, raise model.eta above 0")
