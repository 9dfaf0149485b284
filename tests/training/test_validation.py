"""Validations: numbers of their own that change nothing of the training, and what follows them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_limits import Snapshots, Trainer, module

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core.averaging import with_weights_of
from atomrl.core.records import RewardTable
from atomrl.measures.drawn_before import DrawnBefore
from atomrl.rewards.check import example_crystals
from atomrl.rewards.fresh_formula import FreshFormulaReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.training.callbacks import Checkpoints, Limits
from atomrl.training.rl_module import RLModule
from atomrl.training.run import train
from atomrl.training.validation import FirstMemory, named
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
import small_backbone
from test_train_crystals import COMPONENTS, TINY, places

__all__ = ["places"]  # a fixture


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def trained_numbers(line: dict) -> dict:
    """Those that do not come from a validation, and no times."""
    return {name: value for name, value in line.items() if not name.startswith("val/") and "seconds" not in name}


def molecules(folder: Path, name: str, *more: str) -> Path:
    """A run of four iterations."""
    if not (folder / "backbone").exists():
        small_backbone.write(folder / "backbone")
    words = [*small_backbone.TINY, f"model.backbone={folder / 'backbone'}", f"save_path={folder / name}"]
    return train(load_config("demo", [*words, *more]), "demo")


def test_a_validation_changes_nothing_of_the_training(tmp_path: Path) -> None:
    """Every second iteration, of six samples as in training; the weights and all other numbers are those without it."""
    plain, validated = molecules(tmp_path, "plain"), molecules(tmp_path, "validated", "validation.every=2")
    for iteration, (one, other) in enumerate(zip(lines(plain), lines(validated), strict=True)):
        assert trained_numbers(one) == trained_numbers(other)
        found = {name for name in other if name.startswith("val/")}
        assert found == ({"val/reward", "val/force", "val/energy", "val/failed"} if iteration % 2 else set())
    second, fourth = (lines(validated)[row] for row in (1, 3))
    assert second["val/reward"] != fourth["val/reward"]
    assert second["seconds_validation"] > 0
    states = [torch.load(run / "checkpoint_latest.pth", weights_only=True) for run in (plain, validated)]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name


def test_it_asks_the_averaged_weights_at_fixed_noise(tmp_path: Path) -> None:
    """The same model gives the same numbers whenever it is asked; another seed, others."""
    run = molecules(tmp_path, "run", "validation.every=4", "train.ema_decay=0.99")
    loaded = RLModule.load_from_checkpoint(run)
    try:
        cpu, validation = torch.device("cpu"), loaded.validation
        assert validation is not None
        raw = validation.numbers(loaded.policy, loaded.scorer, loaded.collective, cpu)
        before = [parameter.clone() for parameter in loaded.policy.parameters()]
        with with_weights_of(loaded.averaged.module, loaded.policy.trainable()):
            averaged = [validation.numbers(loaded.policy, loaded.scorer, loaded.collective, cpu) for _ in range(2)]
        assert all(torch.equal(*pair) for pair in zip(before, loaded.policy.parameters(), strict=True))
        logged = {name: value for name, value in lines(run)[3].items() if name.startswith("val/")}
        assert averaged[0] == averaged[1] == pytest.approx(logged)
        assert raw != averaged[0]
        drawn, trained = validation.plan.prompts(0), loaded.plan.prompts(0)
        assert drawn.seed != trained.seed
        assert len(drawn) == len(trained)
    finally:
        loaded.close()
    other = molecules(tmp_path, "other", "validation.every=4", "train.ema_decay=0.99", "validation.seed=5")
    assert lines(other)[3]["val/reward"] != lines(run)[3]["val/reward"]


def test_a_run_on_crystals_follows_its_validations_and_goes_on_alike(tmp_path, places) -> None:
    """Best checkpoint and early stop by `val/reward`; cut in between, the same numbers and the same end."""
    components = f"reward.components=[{COMPONENTS[0]}]"
    options = [*TINY, *places, components, "reward.workers=1", "validation.every=2", "validation.groups=1"]
    options += ["best_checkpoint_metric=val/reward", "early_stop_metric=val/reward", "early_stop_patience=1"]
    options += ["early_stop_delta=10", "train.total_steps=8"]  # nothing is better by 10: the second validation ends it
    words = ["train", "experiment=prototypes/rl_dng_grpo", *options]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*words, f"save_path={whole}", "dataloader.epoches=8"])
    main([*words, f"save_path={cut}", "dataloader.epoches=3"])
    main([*words, f"save_path={cut}", "dataloader.epoches=8", "resume=true"])
    first, second = lines(whole), lines(cut)
    assert len(first) == len(second) == 4
    for one, other in zip(first, second, strict=True):
        assert {name: value for name, value in one.items() if "seconds" not in name} == {
            name: value for name, value in other.items() if "seconds" not in name
        }
    assert {"val/reward", "val/creativity", "val/unique", "val/novel", "val/failed"} <= first[1].keys()
    assert first[1]["val/reward"] == first[1]["val/creativity"] != first[3]["val/reward"]
    best = 1 if first[1]["val/reward"] >= first[3]["val/reward"] else 3
    assert torch.load(whole / "checkpoint_best.pth", weights_only=True)["atomrl"]["iteration"] == best
    main(["resume", str(whole)])
    assert len(lines(whole)) == 4  # it has ended
    for place, iteration in (("checkpoint_best.pth", best), ("checkpoint_latest.pth", 3), ("", 3)):
        loaded = RLModule.load_from_checkpoint(cut / place)
        stored = torch.load(cut / (place or "checkpoint_latest.pth"), weights_only=True)
        assert stored["atomrl"]["iteration"] == iteration
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in stored["state_dict"].items())
        loaded.close()


@pytest.mark.parametrize(
    ("options", "values", "iterations"),
    [
        (["early_stop_metric=reward"], [3.0, 2, 1, 4, 4, 4, 4], 7),  # 4 is better, then three that are not
        (["early_stop_metric=reward"], [3.0, 3, 3, 3, 9], 4),
        (["early_stop_metric=reward", "early_stop_mode=min"], [3.0, 4, float("nan"), 4, 1], 4),
    ],
)
def test_patience_counts_iterations(options, values, iterations, capsys) -> None:
    """Not minutes, so that a run that was stopped in between ends where the other does."""
    config = load_config("demo", [*options, "early_stop_patience=3", "early_stop_minutes=0"])
    for cut in (99, 2):
        limits, trained, done = Limits(config), module(), 0
        for value in values:
            if done == cut:
                kept, limits = limits.state_dict(), Limits(config)
                limits.load_state_dict(kept)
            trainer, trained.line, done = Trainer(), {"reward": value}, done + 1
            limits.on_train_epoch_end(trainer, trained)
            if trainer.should_stop:
                break
        assert done == iterations
        assert capsys.readouterr().out == "reward has not improved in 3 iterations: stopping\n"
        for patience, ended in ((3, True), (4, False)):  # the run that is over, continued
            again, trainer = Limits(load_config("demo", [*options, f"early_stop_patience={patience}"])), Trainer()
            again.load_state_dict(limits.state_dict())
            again.on_train_start(trainer, trained)
            assert trainer.should_stop == ended
        assert capsys.readouterr().out == "reward has not improved in 3 iterations: stopping\n"


def test_iterations_without_a_validation_have_no_say(tmp_path, capsys) -> None:
    options = ["validation.every=3", "best_checkpoint_metric=val/reward", "early_stop_metric=val/reward"]
    config, trained, trainer = load_config("demo", [*options, "early_stop_patience=1"]), module(), Trainer(9)
    saving, limits = Checkpoints(tmp_path, config, Snapshots()), Limits(config)
    best = []
    for done, value in enumerate([None, None, 1.0, None, None, 0.5]):
        trainer.current_epoch, trained.line = done, {"reward": 7.0, **({} if value is None else {"val/reward": value})}
        trained.drawn = SimpleNamespace(table=RewardTable({"force": torch.ones(1)}, (None,)))
        assert not trainer.should_stop
        limits.on_train_epoch_end(trainer, trained)
        saving.on_train_epoch_end(trainer, trained)
        best.append((tmp_path / "checkpoint_best.pth").read_text() if value is not None else None)
    assert best == [None, None, "2", None, None, "2"]
    assert capsys.readouterr().out == "val/reward has not improved in 1 validations: stopping\n"


@pytest.mark.parametrize(
    ("key", "name"),
    [("best_checkpoint_metric", "val/rewrad"), ("early_stop_metric", "val/rewrad"), ("early_stop_metric", "rewrad")],
)
def test_a_number_that_never_comes_is_refused_after_the_first_iteration(tmp_path, key: str, name: str) -> None:
    """Also one of validations, before the first of them; only a scored sample tells which numbers there are."""
    config, trained, trainer = load_config("demo", ["validation.every=30", f"{key}={name}"]), module(), Trainer(60)
    callback = (Checkpoints(tmp_path, config, Snapshots()), Limits(config))[key == "early_stop_metric"]
    trained.line = {"reward": 1.0, "molecule_stability": 0.5}
    trained.drawn = SimpleNamespace(table=RewardTable({"force": torch.full((2,), torch.nan)}, ("scf", "scf")))
    callback.on_train_epoch_end(trainer, trained)
    trained.drawn = SimpleNamespace(table=RewardTable({"force": torch.ones(2)}, (None, "scf")))
    with pytest.raises(UserError, match=f"{key}={name} is not logged; choose one of .*reward") as caught:
        callback.on_train_epoch_end(trainer, trained)
    assert ("val/force" in str(caught.value)) == ("val" in name)


def test_a_number_may_be_missing_once(tmp_path) -> None:
    """What is measured of sound samples, in an iteration without any; also of a validation without any."""
    for name in ("unique", "val/unique"):
        options = ["validation.every=1", f"best_checkpoint_metric={name}", f"early_stop_metric={name}"]
        config, trained, trainer = load_config("demo", [*options, "early_stop_patience=2"]), module(), Trainer(9)
        saving, limits = Checkpoints(tmp_path, config, Snapshots()), Limits(config)
        trained.drawn = SimpleNamespace(table=RewardTable({"force": torch.ones(1)}, (None,)))
        for done, value in enumerate([0.5, None, 0.25]):
            assert not trainer.should_stop
            trainer.current_epoch, trained.line = done, {"val/reward": 1.0, **({} if value is None else {name: value})}
            limits.on_train_epoch_end(trainer, trained)
            saving.on_train_epoch_end(trainer, trained)
        assert trainer.should_stop
        assert (saving.best, saving.best_iteration) == (0.5, 0)


def test_a_reward_that_remembers_validates_by_its_first_memory() -> None:
    """Equal samples are worth the same however often the run drew them; the training goes on with what it knew."""
    structures, prompts = example_crystals()
    reward = ReinforceReward([FreshFormulaReward(halved_at=2)], providers=[DrawnBefore()])
    first, found = FirstMemory(reward), []
    for _ in range(3):
        with first.recalled():
            found.append(reward.score(structures, prompts).diagnostics["raw_reward"].mean().item())
        reward.remember(structures)
    assert found == [1.0, 1.0, 1.0]
    assert reward.score(structures, prompts).diagnostics["raw_reward"].tolist() == [1 / (1 + 12 / 2)] * 16
    with pytest.raises(KeyError), first.recalled():
        raise KeyError
    assert reward.memory() == {"drawn_before": {"NaCl": 12, "MgO": 12, "CsCl": 12, "SrTiO3": 12}}


def test_what_the_numbers_are_called() -> None:
    """Raw numbers where there are some, since normalised ones say the same of every batch."""

    def column(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    nan = float("nan")
    diagnostics = {"raw_energy": column(-1, -0.5), "raw_reward": column(1, 3), "reward": column(0, 0)}
    table = RewardTable({"energy": column(0, 1)}, (None, "scf"), diagnostics={**diagnostics, "unique": column(1, nan)})
    assert named(table) == {"val/reward": 2.0, "val/energy": -0.75, "val/unique": 1.0, "val/failed": 1.0}
    plain = named(RewardTable({"force": column(1, nan), "energy": column(3, 5)}, (None, "scf")))
    assert plain == {"val/reward": 4.0, "val/force": 1.0, "val/energy": 4.0, "val/failed": 1.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["best_checkpoint_metric=val/reward"], "best_checkpoint_metric=val/reward is a number of validations, and "
         "validation.every=0 means none: set it between 1 and 60"),
        (["early_stop_metric=val/reward", "validation.every=99"], "early_stop_metric=val/reward is a number of "
         "validations, and validation.every=99 comes after the last of dataloader.epoches=60"),
        (["validation.every=-1"], "validation.every=-1: must be at least 0"),
        (["validation.groups=0"], "validation.groups=0: must be at least 1"),
        (["early_stop_patience=3"], "early_stop_patience=3 waits for a number: name it, early_stop_metric=reward"),
        (["early_stop_patience=0"], "early_stop_patience=0: must be at least 1"),
    ],
)  # fmt: skip
def test_mistakes(options: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("demo", options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
