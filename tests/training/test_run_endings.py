"""How a run may end other than by finishing, and what may go on afterwards: nothing is lost, nothing is hidden."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from atomrl.config import load_config
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.errors import NonFiniteLossError, UserError
from atomrl.rewards.dummy import DummyReward
from atomrl.training.run import train, train_and_evaluate

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write


def run(folder: Path, *more: str) -> Path:
    """Train two iterations into folder/run."""
    if not (folder / "backbone").exists():
        write(folder / "backbone")
    words = [*TINY, f"model.backbone={folder / 'backbone'}", f"save_path={folder / 'run'}", "dataloader.epoches=2"]
    return train(load_config("demo", [*words, *more]), "demo")


def failing(error: BaseException):
    """A function that raises."""

    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("ending", ["error", "ctrl-c"])
def test_a_run_that_ends_before_its_first_checkpoint(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error keeps its name and message, Ctrl-C is said to be one; either way the same command starts again."""
    with monkeypatch.context() as patched:
        if ending == "error":
            patched.setattr(DummyReward, "score", failing(RuntimeError("out of memory (planted)")))
            with pytest.raises(RuntimeError, match="planted"):
                run(tmp_path)
        else:
            patched.setattr(DummyReward, "score", failing(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path)
    said = capsys.readouterr().out
    assert ("stopped before the first checkpoint; start again with" in said) == (ending == "ctrl-c")
    assert "resume=true" not in said
    assert not (tmp_path / "run").exists()
    assert (run(tmp_path) / "checkpoint_latest.pth").is_file()


def test_a_batch_system_may_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM: the iteration is finished and saved, the exit code is the shell's for it."""
    honest = DummyReward.score

    def score(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, *args)

    monkeypatch.setattr(DummyReward, "score", score)
    with pytest.raises(SystemExit) as caught:
        run(tmp_path)
    assert caught.value.code == 143
    assert "stopped; continue with: save_path=" in capsys.readouterr().out
    assert torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"] == 0


def test_what_is_no_run_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(UserError, match="run exists: remove it, or give another save_path"):
        run(tmp_path)
    with pytest.raises(UserError, match=r"nothing to resume: .*; remove .*run and leave resume out"):
        run(tmp_path, "resume=true")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_what_the_judges_lack_shows_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "backbone")
    words = [*TINY, f"model.backbone={tmp_path / 'backbone'}", f"save_path={tmp_path / 'run'}", "evaluation.samples=4"]
    monkeypatch.setattr(MoleculePanel, "__init__", failing(UserError("no hull")))
    with pytest.raises(UserError, match="no hull"):
        train_and_evaluate(load_config("demo", words), "demo", "atomrl train")
    assert not (tmp_path / "run").exists()


def test_a_metric_that_nobody_logs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"early_stop_metric=foo is not logged; choose one of .*reward"):
        run(tmp_path, "early_stop_metric=foo")


def test_a_resumed_run_is_the_run_that_began(tmp_path: Path) -> None:
    """Another seed, backbone, domain or checkpoint is refused before anything is written over."""
    folder = run(tmp_path)
    described = (folder / "config.yaml").read_text()
    shutil.copytree(tmp_path / "backbone", tmp_path / "other")
    more = ["resume=true", "dataloader.epoches=3"]
    for override in ("seed=7", f"model.backbone={tmp_path / 'other'}"):
        with pytest.raises(UserError, match=rf"resume=true with {override}, but the run .* began with"):
            run(tmp_path, *more, override)
    crystals = load_config("experiment/prototypes/rl_dng", ["resume=true", f"save_path={folder}"])
    with pytest.raises(UserError, match="resume=true with domain=crystals"):
        train(crystals, "crystals")
    good = (folder / "checkpoint_latest.pth").read_bytes()
    for content, message in (({"x": 1}, "not a checkpoint"), (torch.zeros(3), "not a checkpoint")):
        torch.save(content, folder / "checkpoint_latest.pth")
        with pytest.raises(UserError, match=message):
            run(tmp_path, *more)
    checkpoint = torch.load(tmp_path / "run" / "checkpoint_best.pth", weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("averaged.module."))
    checkpoint["state_dict"][name] = torch.zeros(2, 2)
    torch.save(checkpoint, folder / "checkpoint_latest.pth")
    with pytest.raises(UserError, match=r"shape|fit"):
        run(tmp_path, *more)
    assert (folder / "config.yaml").read_text() == described
    (folder / "checkpoint_latest.pth").write_bytes(good)
    run(tmp_path, *more)


def test_a_loss_that_is_not_finite_leaves_a_reproducer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose loss is finite and whose gradient is not."""
    honest = torch.nn.utils.clip_grad_norm_

    def infinite(*args, **options):
        return honest(*args, **options) * torch.inf

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", infinite)
    with pytest.raises(
        NonFiniteLossError, match=r"the gradient over transitions \d+ to \d+ of iteration 0 .*reproduces"
    ):
        run(tmp_path)
    saved = torch.load(tmp_path / "run" / "nonfinite_loss.pt", weights_only=True)
    assert saved["iteration"] == 0
    kept = saved["buckets"][0]
    assert set(kept["latents"]) == set(kept["following"]) == set(saved["transitions"])
    assert len(kept["sample_ids"]) == len(kept["latents"][saved["transitions"][0]])
