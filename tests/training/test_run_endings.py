"""How a run may end other than by finishing, and what may go on afterwards: nothing is lost, nothing is hidden."""

import csv
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atomrl.config import load_config
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.rewards.dummy import DummyReward
from atomrl.training.rl_module import RLModule
from atomrl.training.run import train, train_and_evaluate
from atomrl.util.errors import NonFiniteLossError, UserError

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write


def run(folder: Path, *more: str, name: str = "demo") -> Path:
    """Train two iterations into folder/run."""
    if not (folder / "backbone").exists():
        write(folder / "backbone")
    words = [*TINY, f"model.backbone={folder / 'backbone'}", f"save_path={folder / 'run'}", "dataloader.epoches=2"]
    return train(load_config(name, [*words, *more]), "demo")


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
    assert f"stopped; continue with: atomrl resume {tmp_path}" in capsys.readouterr().out
    assert torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"] == 0


@pytest.mark.parametrize("ending", ["ctrl-c", "sigterm"])
def test_a_run_that_is_saved_seldom_loses_no_iteration(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its third iteration, and continued: the same as if it had not been."""
    sparse, calls, honest = ["save_every=10", "dataloader.epoches=4", "log.csv=true"], [0], DummyReward.score

    def score(self, *args):
        calls[0] += 1
        if calls[0] == 5:  # the third iteration's first bucket
            if ending == "ctrl-c":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(DummyReward, "score", score)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path, *sparse)
    latest = tmp_path / "run" / "checkpoint_latest.pth"
    saved = torch.load(latest, weights_only=True)["atomrl"]["iteration"]
    assert saved == (1 if ending == "ctrl-c" else 2)
    run(tmp_path, *sparse, "resume=true")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    with (tmp_path / "run" / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("iteration", "reward", "lr"):
        assert [float(row[name]) for row in rows] == [line[name] for line in lines]
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    found = torch.load(latest, weights_only=True)["state_dict"]
    (tmp_path / "run").rename(tmp_path / "stopped")
    expected = torch.load(run(tmp_path, *sparse) / "checkpoint_latest.pth", weights_only=True)["state_dict"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(("before", "after"), [(0, 0.1), (0.1, 0)])
def test_a_resumed_run_may_change_its_kl(
    before: float, after: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reference is the backbone that the run began with, whether it was kept or not; the change is said."""
    name = "demo_fed_grpo"
    run(tmp_path, f"train.kl_penalty_weight={before}", name=name)
    folder = run(tmp_path, f"train.kl_penalty_weight={after}", "resume=true", "dataloader.epoches=3", name=name)
    said = [record.message for record in caplog.records if "changed settings" in record.message]
    assert len(said) == 1
    change = f"train.kl_penalty_weight={float(after)}, was {float(before)}"
    assert f"changed settings: dataloader.epoches=3, was 2; {change}; the learning rate follows" in said[0]
    state = torch.load(folder / "checkpoint_latest.pth", weights_only=True)["state_dict"]
    kept = {name.removeprefix("policy.initial."): value for name, value in state.items() if ".initial." in name}
    backbone = load_file(tmp_path / "backbone" / "model.safetensors")
    assert bool(kept) == bool(after)
    for name, value in kept.items():
        assert torch.equal(value, backbone[name]), name


def test_a_resumed_run_may_change_its_objective(tmp_path: Path) -> None:
    """An old policy that was not kept is the current one of the checkpoint; one that is not needed is dropped."""
    for name, other, kept in (("demo_fed_grpo", "demo", True), ("demo", "demo_fed_grpo", False)):
        folder = run(tmp_path, name=name)
        begun = torch.load(folder / "checkpoint_latest.pth", weights_only=True)["state_dict"]
        run(tmp_path, "resume=true", "dataloader.epoches=3", name=other)
        module = RLModule.load_from_checkpoint(folder)
        found = {key: value for key, value in module.state_dict().items() if ".followed." in key}
        module.close()
        assert bool(found) == kept
        for key, value in found.items():
            assert torch.equal(value, begun[key.replace(".followed.", ".current.")]), key
        shutil.rmtree(folder)


def test_what_is_no_run_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    with pytest.raises(UserError, match="run exists: remove it, or give another save_path"):
        run(tmp_path)
    with pytest.raises(UserError, match=r"nothing to resume: .*; remove .*run and leave resume out"):
        run(tmp_path, "resume=true")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_what_the_judges_lack_shows_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And before the judges, what the configuration alone shows."""
    write(tmp_path / "backbone")
    words = [*TINY, f"model.backbone={tmp_path / 'backbone'}", f"save_path={tmp_path / 'run'}", "evaluation.samples=4"]
    monkeypatch.setattr(MoleculePanel, "__init__", failing(UserError("no hull")))
    words += ["train.objective=awm", "train.warmup_steps=1"]
    with pytest.raises(UserError, match="no hull"):
        train_and_evaluate(load_config("demo_fed_grpo", words), "demo", "atomrl train")
    assert ["train.objective=awm does not read" in record.getMessage() for record in caplog.records] == [True]
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
    crystals = load_config("experiment/prototypes/rl_dng_grpo", ["resume=true", f"save_path={folder}"])
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
    for wrong, message in (({"optimizer_states": None}, "lacks optimizer_states"), ({"atomrl": {}}, "iteration")):
        checkpoint = torch.load(tmp_path / "run" / "checkpoint_best.pth", weights_only=True)
        for name, value in wrong.items():
            if value is None:
                del checkpoint[name]
            else:
                checkpoint[name]["iteration"] = "one"
        torch.save(checkpoint, folder / "checkpoint_latest.pth")
        with pytest.raises(UserError, match=message):
            run(tmp_path, *more)
    (folder / "checkpoint_latest.pth").write_bytes(good)
    with pytest.raises(UserError, match=r"dataloader\.epoches=1, but the run .* has done 2 iterations"):
        run(tmp_path, "resume=true", "dataloader.epoches=1")
    assert (folder / "config.yaml").read_text() == described
    run(tmp_path, *more)


@pytest.mark.parametrize(
    ("name", "terms", "kept"),
    [("demo_fed_grpo", "transitions", {"latents", "following"}), ("demo", "draws", {"clean"})],
)
def test_a_loss_that_is_not_finite_leaves_a_reproducer(
    name: str, terms: str, kept: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose loss is finite and whose gradient is not."""
    honest = torch.nn.utils.clip_grad_norm_

    def infinite(*args, **options):
        return honest(*args, **options) * torch.inf

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", infinite)
    with pytest.raises(NonFiniteLossError, match=rf"the gradient over {terms} \d+ to \d+ of iteration 0 .*reproduces"):
        run(tmp_path, name=name)
    saved = torch.load(tmp_path / "run" / "nonfinite_loss.pt", weights_only=True)
    assert saved["iteration"] == 0
    bucket = saved["buckets"][0]
    for what in kept:
        assert set(bucket[what]) == set(saved[terms])
        assert len(bucket["sample_ids"]) == len(bucket[what][saved[terms][0]])
