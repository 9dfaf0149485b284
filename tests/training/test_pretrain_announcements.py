"""What a pre-training prints while it runs: a bar on a terminal, a line every few minutes elsewhere."""

from types import SimpleNamespace

import pytest
import torch
from test_announcements import Noon

from atomrl.pretraining import announcements as steps
from atomrl.pretraining.announcements import StepProgress
from atomrl.training import announcements


def told(progress: StepProgress, monkeypatch: pytest.MonkeyPatch, begin: int = 0, total: int = 1000) -> None:
    """A pre-training whose first step takes 100 s and each other one half a second."""
    clock = SimpleNamespace(now=1e6)
    monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(announcements, "datetime", Noon)
    trainer = SimpleNamespace(max_steps=total, global_step=begin, callback_metrics={})
    for step in range(begin + 1, total + 1):
        clock.now += 100 if step == begin + 1 else 0.5
        trainer.global_step = step
        trainer.callback_metrics = {"loss": torch.tensor(0.25), "kl": torch.tensor(3.0)}
        progress.on_train_batch_end(trainer, None, None, None, 0)
    progress.on_train_end(trainer, None)


def test_lines_where_no_terminal_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One after ten steps, then one every three minutes; the first step counts in no estimate."""
    told(StepProgress(minutes=3, log_every=50), monkeypatch)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "12:00:00 11 of 1,000 steps: loss 0.250; 2 steps/s, 8.2 min left",
        "12:00:00 371 of 1,000 steps: loss 0.250; 2 steps/s, 5.2 min left",
        "12:00:00 731 of 1,000 steps: loss 0.250; 2 steps/s, 2.2 min left",
    ]
    assert err == ""


def test_one_that_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told(StepProgress(minutes=3, log_every=50), monkeypatch, begin=900)
    assert capsys.readouterr().out == "12:00:00 911 of 1,000 steps: loss 0.250; 2 steps/s, 44.5 s left\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It begins where the run goes on, and shows numbers only if they are logged."""
    monkeypatch.setenv("ELIGN_TQDM", "1")
    told(StepProgress(minutes=3, log_every=1), monkeypatch, begin=997)
    out, err = capsys.readouterr()
    assert out == ""
    assert "998/1000" in err
    assert "1000/1000" in err
    assert "loss=0.250" in err
    assert "kl" not in err
    told(StepProgress(minutes=3, log_every=0), monkeypatch, total=3)
    assert "loss=" not in capsys.readouterr().err
