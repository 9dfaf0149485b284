"""Keys that only a training reads are refused by the commands that sample and judge, in one line."""

from pathlib import Path

import pytest
from refusals import refused
from small_backbone import TINY, write

import atomrl
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.util.errors import UserError

SAMPLED = [
    (["model.skip_prefix=5"], "model.skip_prefix=5: sampling does not read model.skip_prefix, only a training does"),
    (["model.share_initial_noise=true"], "sampling does not read model.share_initial_noise"),
    (["model.return_suffix_only=false"], "sampling does not read model.return_suffix_only"),
    (["--backbone", "crystal_small", "model.lora.rank=4"], "sampling does not read model.lora.rank"),
    (["--best-of", "2", "reward.shaping.enabled=true"], "sampling does not read reward.shaping.enabled"),
    (
        ["--best-of", "2", "--config-name", "fed_grpo_config", "reward.type=dummy"],
        "reward.type=dummy has no total, by which samples could be chosen",
    ),
    (["seed=1"], "seed=1: give --seed"),
    (["--tries", "5"], "--tries is about formulas: give --compositions too"),
    (["--best-of", "2", "reward.gate=mask"], "reward.gate=mask changes nothing with reward.force_only_if_stable=false"),
    (["--backbone", "crystal_small", "model.eta=0.5"], "model.eta=0.5 changes nothing with model.sampler=ddpm"),
]


@pytest.mark.parametrize(("words", "message"), SAMPLED)
def test_sample(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "some.extxyz"
    assert message in refused(capsys, "sample", "-n", "2", "--output", str(output), *words)
    assert not output.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.skip_prefix=5"], "an evaluation does not read model.skip_prefix, only a training does: leave it out"),
        (["seed=1"], "seed=1: an evaluation takes no seed; give --seed"),
        (["reward.shaping.gamma=0.9"], "an evaluation does not read reward.shaping.gamma"),
        (["--base", "crystal_small", "model.lora.rank=4"], "an evaluation does not read model.lora.rank"),
        (["--base", "crystal_small", "model.eta=0.5"], "model.eta=0.5 changes nothing with model.sampler=ddpm"),
    ],
)
def test_evaluate(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "table"
    assert message in refused(capsys, "evaluate", "-n", "2", "--output", str(output), *words)
    assert not output.exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.skip_prefix=2", "sampling does not read model.skip_prefix"),
        ("model.time_step=5", "model.time_step=5: give time_step to atomrl.sample"),
        ("reward.stability_weight=2", "a model that is loaded reads keys of the section model only"),
    ],
)
def test_from_python(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        atomrl.load("edm_qm9_small", [word])


def test_a_configuration_from_python_refuses_what_its_objective_does_not_read() -> None:
    with pytest.raises(UserError, match=r"does not read train\.kl_weight=1"):
        atomrl.train(load_config("demo"), ["train.kl_weight=1"])


def test_the_same_keys_in_a_runs_own_config_are_fine(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shared = ["model.share_initial_noise=true", "model.skip_prefix=4", "model.return_suffix_only=false"]
    options = [*TINY, f"model.backbone={write(tmp_path / 'net')}", *shared, "train.train_steps=null"]
    main(["train", "--config-name", "demo_fed_grpo", *options, "dataloader.epoches=1", f"save_path={run}"])
    main(["sample", "--backbone", str(run), "-n", "2", "--time-step", "3", "--output", str(tmp_path / "some.extxyz")])
    assert (tmp_path / "some.extxyz").exists()
