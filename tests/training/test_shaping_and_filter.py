"""Shaped rewards and the filter in a run: the log says what they did, and what cannot be is refused."""

import json
from pathlib import Path

import pytest
import small_backbone
import torch
from refusals import refused
from small_backbone import TINY

from atomrl.cli import main
from atomrl.config import CrystalConfig, load_config
from atomrl.config.crystals import CrystalReward
from atomrl.config.shaping import ShapingOptions
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.policies.toy import SubspaceGaussian
from atomrl.training.experiment import build_on_the_way, terms_of_a_pass
from atomrl.training.shaping import shaping_stages
from atomrl.util.errors import UserError

SHAPED = ["reward.shaping.enabled=true", "reward.shaping.scheduler.skip_prefix=4", "reward.shaping.mlff_batch_size=2"]
ADAPTIVE = ["reward.shaping.scheduler.mode=adaptive", "reward.shaping.scheduler.adaptive.coarse_stride=1"]
ALIGNED = [*SHAPED, *ADAPTIVE, "train.force_alignment_enabled=true"]


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["delta", "pbrs_return_to_go"])
def test_a_run_says_what_its_potentials_cost(tmp_path: Path, mode: str) -> None:
    """GFN2-xTB on the way too: ten transitions, of which the last six are scored, two groups of three."""
    backbone, run = small_backbone.write(tmp_path / "backbone"), tmp_path / "run"
    physics = ["reward.type=xtb", "reward.workers=1", "dataloader.epoches=2"]
    overrides = [*TINY, *physics, *SHAPED, f"reward.shaping.mode={mode}", f"model.backbone={backbone}"]
    main(["train", "--config-name", "demo_fed_grpo", *overrides, f"save_path={run}"])
    for line in log_of(run):
        assert line["potentials"] == 6 * 2 * 3
        assert 0 <= line["failed_potentials"] <= line["potentials"]
        assert line["seconds_reward_potentials"] > 0
        assert line["force_field_calls"] == 2 * 3
        assert line["grad_norm"] >= 0


def test_an_energy_that_is_not_there_is_not_shaped() -> None:
    """Of crystals: one mode ended after the first rollout, the other paid nothing on the way without a word."""
    for options in ({"only_energy_reshape": True}, {"mode": "pbrs_return_to_go"}):
        reward = CrystalReward(shaping=ShapingOptions(enabled=True, **options))
        config = CrystalConfig(reward=reward)
        assert len(shaping_stages(config, (), ["creativity", "energy"])) == 1
        with pytest.raises(UserError, match="shapes the channel energy alone, and the reward gives creativity: add"):
            shaping_stages(config, (), ["creativity"])


def test_a_run_says_what_the_force_field_cost(tmp_path: Path) -> None:
    """Of finished molecules, without anything scored on the way; a reward without a force field has no such numbers."""
    backbone = small_backbone.write(tmp_path / "backbone")
    for kind in ("xtb", "dummy"):
        run = tmp_path / kind
        words = [*TINY, f"reward.type={kind}", "reward.workers=1", "dataloader.epoches=1", f"model.backbone={backbone}"]
        main(["train", "--config-name", "demo_fed_grpo", *words, f"save_path={run}"])
        (line,) = log_of(run)
        assert ("force_field_calls" in line) == ("seconds_reward_force_field" in line) == (kind == "xtb")
        if kind == "xtb":
            assert line["force_field_calls"] == 2 * 3
            assert 0 < line["seconds_reward_force_field"] < line["seconds_rollout"]


def test_a_prefix_beyond_what_is_trained_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of ten transitions the first six start at t >= 0.5."""
    times = ["train.train_min_time=0.5", "train.train_max_time=1", "train.train_steps=null"]
    words = [*TINY, *times, f"model.backbone={small_backbone.write(tmp_path / 'backbone')}"]
    words += ["model.share_initial_noise=true", "model.skip_prefix=6", f"save_path={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--config-name", "demo_fed_grpo", *words])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "model.skip_prefix=6 holds all transitions of train.train_min_time=0.5 to train.train_max_" in said.err
    assert not said.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("asked", "said"), [(5, True), (4, False), (None, False)])
def test_fewer_transitions_than_asked_for_are_announced(
    asked: int | None, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of ten transitions four start at t = 0.1 to 0.4."""
    config = load_config("demo_fed_grpo", [*TINY, f"train.train_steps={asked or 'null'}"])
    walk = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).transitions(10)
    assert terms_of_a_pass(config.train, FedGRPO(FedGRPOConfig()), walk) == (4, "trained transitions")
    assert ("train.train_steps=5: only 4 transitions lie in" in caplog.text) == said


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.objective=nft"], "reward.shaping.enabled=true needs train.objective=fed_grpo: nft reads one reward"),
        (
            ["reward.use_energy=false", "reward.shaping.only_energy_reshape=true", "train.energy_adv_weight=0"],
            "reward.shaping shapes the energy, and reward.use_energy=false: there is no energy channel",
        ),
        (
            ["reward.shaping.mode=pbrs_return_to_go", "reward.shaping.terminal_weight=5"],
            "reward.shaping.mode=pbrs_return_to_go has no weight of its last transition",
        ),
        (["reward.shaping.gamma=0"], "gamma"),
        (["reward.shaping.scheduler.mode=fast"], "uniform"),
    ],
)
def test_mistakes(overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--config-name", "demo_fed_grpo", "reward.type=xtb", *SHAPED, *overrides])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_run_with_the_filter(tmp_path: Path) -> None:
    """Real RDKit on real samples of the shipped backbone; ethanol and methane are what is known."""
    known = tmp_path / "known.smi"
    known.write_text("CCO\nC\n")
    words = ["model.time_step=25", "dataloader.sample_group_size=2", "dataloader.each_prompt_sample=4", "threads=1"]
    words += ["dataloader.epoches=1", "evaluation.samples=0", "log.tensorboard=false", "reward.type=dummy"]
    words += ["train.stability_adv_weight=0", "filters.enable_filtering=true", "filters.enable_penalty=true"]
    words += ["filters.invalid_penalty_scale=2", f"dataloader.smiles_path={known}", f"save_path={tmp_path / 'run'}"]
    main(["train", "--config-name", "demo_fed_grpo", *words, "train.train_steps=null"])
    (line,) = log_of(tmp_path / "run")
    assert line["filter_ratio"] == 1 - line.get("failed_duplicate", 0) / 8
    assert abs(line["novelty_penalty_ratio"] - (1 - line["rdkit_validity"])) < 1e-6  # neither is among eight of these
    if 0 < line["rdkit_validity"] < 1:
        assert line["force_reward_min"] < -2


def test_an_alignment_that_aligns_nothing_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a YAML: without shaped rewards, and with a schedule that has no fine places; with them there is no warning."""
    backbone = small_backbone.write(tmp_path / "backbone")
    (tmp_path / "aligned.yaml").write_text("train: {force_alignment_enabled: true}\n")
    tiny = [word for word in TINY if not word.startswith("train.force_alignment")]
    words = ["train", "--config-dir", str(tmp_path), "--config-name", "aligned", *tiny, f"model.backbone={backbone}"]
    words += ["reward.type=xtb", "reward.workers=1", "dataloader.epoches=1"]
    for name, more, missing in (
        ("bare", [], "there are no forces without reward.shaping"),
        ("uniform", SHAPED, "the schedule has no fine places"),
        ("adaptive", [*SHAPED, *ADAPTIVE, "train.epoch_per_rollout=2"], None),
    ):
        caplog.clear()
        main([*words, *more, f"save_path={tmp_path / name}"])
        assert ("aligns nothing" in caplog.text) == (missing is not None)
        assert missing is None or missing in caplog.text


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        ([], "an iteration has one optimizer step, at which no mean has moved yet"),
        (
            ["train.train_min_time=0.35", "train.epoch_per_rollout=2"],
            "none of the schedule's fine places is trained on",
        ),
        (["train.epoch_per_rollout=2"], None),
        (["train.num_inner_batch=2"], None),
        (["train.gradient_accumulation_steps=1", "train.train_micro_batch_size=3"], None),
        (
            ["train.gradient_accumulation_steps=1", "train.train_micro_batch_size=6"],
            "an iteration has one optimizer step",
        ),
    ],
)
def test_an_alignment_of_what_does_not_move_says_so(
    overrides: list[str], missing: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Two groups of three in ten steps, of which those with t = 0.1 to 0.4 are trained; two places are fine."""
    config = load_config("demo_fed_grpo", [*TINY, *ALIGNED, "reward.type=xtb", *overrides])
    walk = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).transitions(10)
    found = build_on_the_way(config, walk, forces=True)
    assert found.scored == (4, 5, 6, 7, 9)
    assert found.aligned == (() if missing else (7, 9))
    assert (found.alignment is None) == (missing is not None)
    assert missing is None or missing in caplog.text
    assert ("aligns nothing" in caplog.text) == (missing is not None)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["reward.shaping.only_energy_reshape=true"], "every channel but energy teaches nothing"),
        (["reward.shaping.terminal_weight=0.5"], "reward.shaping.terminal_weight changes nothing"),
        (["reward.shaping.terminal_weight=0.5", "train.train_min_time=0"], None),
        ([], None),
    ],
)
def test_what_is_paid_at_an_untrained_end_is_named(
    overrides: list[str], missing: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The demo by the policy gradient trains on t = 0.1 to 0.4 alone; the last of ten transitions starts at 0.1."""
    words = [*TINY, *SHAPED, "reward.type=xtb", "reward.use_energy=true", "train.train_min_time=0.15", *overrides]
    config = load_config("demo_fed_grpo", words)
    build_on_the_way(config, SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).transitions(10), forces=True)
    assert ("last transition, which is not trained on" in caplog.text) == (missing is not None)
    assert missing is None or missing in caplog.text


def test_an_alignment_with_a_reward_without_forces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is sampled."""
    backbone, run = small_backbone.write(tmp_path / "backbone"), tmp_path / "run"
    words = [*TINY, *ALIGNED, "train.epoch_per_rollout=2", f"model.backbone={backbone}", f"save_path={run}"]
    line = refused(capsys, "train", "--config-name", "demo_fed_grpo", *words)
    assert line.startswith("error: train.force_alignment_enabled=true needs forces, and this reward computes none")
    assert not (run / "metrics.jsonl").exists()
