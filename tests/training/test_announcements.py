"""What a training prints: a bar on a terminal, lines elsewhere, and at the end what came of it."""

import math
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from atomrl.config import load_config
from atomrl.domains import domain_of
from atomrl.training import announcements
from atomrl.training.announcements import Progress, next_commands, spoken, what_came_of_it


class Noon(datetime):
    """Stands still."""

    @classmethod
    def now(cls, tz=None):
        return datetime(2026, 1, 1, 12, 0, 0, tzinfo=tz)


def told(progress: Progress, iterations: int, monkeypatch: pytest.MonkeyPatch, begin: int = 0) -> None:
    """A training whose first iteration takes 100 s longer than the others, which take 30 s."""
    clock = SimpleNamespace(now=1e6)
    monkeypatch.setattr(announcements, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(announcements, "datetime", Noon)
    trainer = SimpleNamespace(max_epochs=iterations, current_epoch=begin, callback_metrics={})
    progress.on_train_start(trainer, None)
    for iteration in range(begin, iterations):
        clock.now += 130 if iteration == begin else 30
        trainer.current_epoch = iteration
        trainer.callback_metrics = {"reward": torch.tensor(0.25), "lr": torch.tensor(1e-3)}
        progress.on_train_epoch_end(trainer, None)
    progress.on_train_end(trainer, None)


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ELIGN_TQDM", "1")
    told(Progress(), 3, monkeypatch)
    out, err = capsys.readouterr()
    assert out == "first iteration: 2.2 min, including the start-up; 2 left\n"
    assert "train" in err
    assert "2/2" in err
    assert "reward=0.250" in err
    assert "lr=" not in err


def test_lines_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the first iteration takes longer counts in no estimate."""
    told(Progress(("reward", "novel"), every=4), 11, monkeypatch)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "first iteration: 2.2 min, including the start-up; 10 left",
        "12:00:00 2 of 11: reward 0.250; 30.0 s each, 4.5 min left",
        "12:00:00 4 of 11: reward 0.250; 30.0 s each, 3.5 min left",
        "12:00:00 8 of 11: reward 0.250; 30.0 s each, 90.0 s left",
        "12:00:00 11 of 11: reward 0.250; 30.0 s each",
    ]
    assert err == ""


def test_a_run_that_goes_on_and_one_that_prints_no_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told(Progress(every=10), 9, monkeypatch, begin=6)
    assert [line[9:15] for line in capsys.readouterr().out.splitlines()[1:]] == ["8 of 9", "9 of 9"]
    told(Progress(every=0), 9, monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) == 1
    Progress().on_train_end(None, None)  # one that ends in its first iteration has no bar


def test_times_in_words() -> None:
    assert [spoken(seconds) for seconds in (0.04, 119, 120, 7199, 7200)] == [
        "0.0 s",
        "119.0 s",
        "2.0 min",
        "120.0 min",
        "2.0 h",
    ]


@pytest.mark.parametrize(
    ("best", "iteration", "said"),
    [
        (0.51234, 7, "best iteration: 7, reward=0.5123"),
        (0.5, None, "best iteration: one written by an earlier version, reward=0.5"),
        (math.nan, None, "there is no best iteration: none has a number for reward"),
    ],
)
def test_what_came_of_a_run(best: float, iteration: int | None, said: str, tmp_path: Path) -> None:
    config = load_config("demo", ["best_checkpoint_metric=reward", "dataloader.epoches=9"])
    (tmp_path / "wandb").mkdir()
    checkpoints = SimpleNamespace(best=best, best_iteration=iteration)
    assert what_came_of_it(tmp_path, config, checkpoints, 8, 7200).splitlines() == [
        "8 of 9 iterations done, 2.0 h",
        said,
        f"  {tmp_path / 'wandb'}  what W&B got",
    ]


def test_the_best_of_before_is_not_the_best_by_a_number_that_nothing_has_yet(tmp_path: Path) -> None:
    """A run that went on with another best_checkpoint_metric."""
    (tmp_path / "checkpoint_best.pth").touch()
    for best, said in ((math.nan, "an earlier metric"), (0.5, "molecule_stability")):
        checkpoints = SimpleNamespace(best=best, best_iteration=None)
        lines = what_came_of_it(
            tmp_path, load_config("demo", ["best_checkpoint_metric=molecule_stability"]), checkpoints, 8, 1
        )
        assert lines.endswith(f"checkpoint_best.pth  the best by {said}")


def test_what_to_do_next(tmp_path: Path) -> None:
    """Of a run whose reward is the user's code the commands say that it is trusted."""
    own = ["reward.components=[{_target_: own.py:Mine}]", "dataloader.epoches=9", "train.energy_adv_weight=0"]
    own += ["train.stability_adv_weight=0"]
    config = load_config("demo", own)
    run = tmp_path / "a run"
    commands = next_commands(run, config, domain_of(config)).splitlines()[1:]
    assert commands == [
        f"  atomrl evaluate --base edm_qm9_small --trained '{run}' --trust-code --output '{run / 'evaluation'}'",
        f"  atomrl sample --backbone '{run}' --output '{run}.extxyz'",
    ]
    (run / "evaluation").mkdir(parents=True)
    (run / "evaluation" / "evaluation.md").touch()
    assert next_commands(run, config, domain_of(config)).splitlines()[1:] == [
        commands[1],
        f"  atomrl resume '{run}' --trust-code dataloader.epoches=18",
    ]
