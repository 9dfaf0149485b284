"""The documented configurations say what the documents say, and run: counts shrunk, nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from atomrl.cli import main
from atomrl.config import load_config

SMALL = ["dataloader.sample_group_size=2", "dataloader.each_prompt_sample=3", "dataloader.epoches=2", "threads=1"]
SMALL += ["model.time_step=25", "reward.workers=1", "log.tensorboard=false", "train.train_micro_batch_size=4"]


def test_the_default() -> None:
    config = load_config("fed_grpo_config")
    loader, train, shaping = config.dataloader, config.train, config.reward.shaping
    assert (loader.sample_group_size, loader.each_prompt_sample, loader.micro_batch_size, loader.epoches) == (
        4,
        128,
        512,
        100,
    )
    assert (config.model.time_step, train.learning_rate, train.clip_range, train.kl_penalty_weight) == (
        1000,
        5e-6,
        0.15,
        0,
    )
    assert (train.scheduler, train.warmup_steps, train.total_steps, train.min_lr_ratio) == ("cosine", 10, 150, 0.05)
    assert (train.force_alignment, config.filters.penalty_scale) == (
        {"weight": 0.5, "min_force": 1e-4, "min_delta": 1e-4},
        0.5,
    )
    assert (shaping.mode, shaping.terminal_weight, shaping.scheduler.skip_prefix) == ("delta", 5, 500)
    assert (config.channel_weights, config.best_checkpoint_metric) == ({"force": 1.0}, "molecule_stability")


def test_groups_of_six() -> None:
    config = load_config("fed_grpo_qm9_energy_force_group4x6")
    train, reward = config.train, config.reward
    assert (config.dataloader.sample_group_size, config.dataloader.each_prompt_sample, config.dataloader.epoches) == (
        4,
        6,
        200,
    )
    assert (train.learning_rate, train.clip_range, train.kl_penalty_weight, train.train_micro_batch_size) == (
        4e-6,
        2e-3,
        0.08,
        8,
    )
    assert (config.max_time_hours, config.early_stop_metric, config.early_stop_minutes) == (
        6,
        "validity_x_uniqueness",
        20,
    )
    assert (config.filters.enable_filtering, config.filters.invalid_penalty_scale) == (True, 2)
    assert (reward.force_clip_threshold, reward.stability_weight, reward.energy_transform_clip) == (2, 2, 5)
    assert reward.shaping.scheduler.skip_prefix == 700  # for who switches shaping on
    assert (reward.energy_only_if_stable, reward.shaping.enabled, config.model.share_initial_noise) == (
        True,
        False,
        True,
    )
    assert config.channel_weights == {"force": 1.0, "energy": 0.05}


def test_return_to_go() -> None:
    config = load_config("fed_grpo_qm9_paper_pbrs")
    train, shaping = config.train, config.reward.shaping
    assert (config.dataloader.each_prompt_sample, config.model.skip_prefix, shaping.scheduler.skip_prefix) == (
        24,
        600,
        600,
    )
    assert (train.clip_range, train.kl_penalty_weight, train.train_micro_batch_size) == (2e-3, 0.04, 4)
    assert (train.warmup_steps, train.total_steps, train.min_lr_ratio) == (60, 1500, 0.3)
    assert (shaping.mode, shaping.gamma, shaping.scheduler.uniform_stride) == ("pbrs_return_to_go", 1, 1)
    assert config.channel_weights == {"force": 1.0, "energy": 0.1}


def differing(name: str) -> dict[str, Any]:
    """What a YAML sets otherwise than the demo, by dotted key."""

    def leaves(options: Any, prefix: str = "") -> dict[str, Any]:
        parts = (
            leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
            for key, value in options.items()
        )
        return {key: value for part in parts for key, value in part.items()}

    demo, other = (leaves(load_config(config).model_dump()) for config in ("demo", name))
    return {key: value for key, value in other.items() if demo[key] != value}


def test_the_published_objectives() -> None:
    """DiffusionNFT and AWM with the settings of their papers; model, reward and evaluation are the demo's."""
    both = {
        "train.advantages": "channels",
        "train.num_inner_batch": None,
        "train.learning_rate": 3e-4,
        "train.max_grad_norm": 1.0,
        "train.scheduler": "constant",
        "train.warmup_steps": 0,
    }
    own = {"times": 9, "max_time": 1.0, "b": 0.1, "clip_advantage": 5.0, "self_normalized": True}
    own |= {"time_weighting": "clean", "max_time_weight": 1000.0, "reference_weight": 1e-4, "residual_limit": None}
    own |= {"old_decay_rate": 0.001}  # up to 0.5, which is the default
    sizes = {"sample_group_size": 48, "each_prompt_sample": 24, "epoches": 20}
    published = differing("demo_nft_published")
    assert published.pop("train.decay_fraction") != load_config("demo").train.decay_fraction  # of another schedule
    assert published == {
        **both,
        **{f"train.nft.{key}": value for key, value in own.items()},
        **{f"dataloader.{key}": value for key, value in sizes.items()},
    }
    matched = {key: value for key, value in differing("demo_awm_published").items() if ".nft." not in key}
    own = {"times": 6, "min_time": 0.1, "reference_weight": 0.001, "old_decay_rate": 0.001, "old_decay_max": 0.3}
    matched.pop("train.decay_fraction")
    assert matched == {
        **both,
        "train.objective": "awm",
        "train.ema_decay": 0.99,
        **{f"train.awm.{key}": value for key, value in own.items()},
    }
    awm = load_config("demo_awm_published").train.awm
    assert (awm.clip_range, awm.clip_advantage, awm.old_weight, awm.power) == (1.0, 5.0, 1.0, 1.0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("fed_grpo_config", ["reward.shaping.scheduler.skip_prefix=15"]),
        ("fed_grpo_qm9_energy_force_group4x6", []),
        ("fed_grpo_qm9_paper_pbrs", ["model.skip_prefix=20", "reward.shaping.scheduler.skip_prefix=20"]),
    ],
)
def test_they_run(name: str, places: list[str], tmp_path: Path) -> None:
    """On the shipped backbone, with xTB: the log shows the parts that each is made of."""
    main(["train", "--config-name", name, *SMALL, *places, f"save_path={tmp_path / 'run'}"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    shown = {
        "fed_grpo_config": {"potentials", "novelty_penalty_ratio"},
        "fed_grpo_qm9_energy_force_group4x6": {"filter_ratio", "kl_loss"},
        "fed_grpo_qm9_paper_pbrs": {"potentials", "kl_loss", "novelty_penalty_ratio"},
    }[name]
    assert shown <= lines[0].keys()
    assert all(line["grad_norm"] >= 0 for line in lines)
    if name == "fed_grpo_qm9_paper_pbrs":
        assert lines[0]["potentials"] == 5 * 6
