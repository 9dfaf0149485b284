"""A run that is resumed with other settings trains by them from its first new iteration on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_backbone import TINY, write

from atomrl.config import load_config
from atomrl.core.schedules import lr_factor
from atomrl.pretraining.edm_run import pretrain_edm
from atomrl.training.changed_settings import changes, require_typed
from atomrl.training.run import train
from atomrl.util.errors import UserError

BEGUN = ["train.warmup_steps=1", "dataloader.epoches=3"]
CONSTANT = "train.scheduler=constant"


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Settings that AdamW stepped with, one entry per step."""
    found: list[dict[str, Any]] = []
    honest = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        [group] = self.param_groups
        found.append({name: value for name, value in group.items() if name != "params"})
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return found


def run(tmp_path: Path, *words: str) -> list[float]:
    """Train; the rates in the log."""
    places = [f"model.backbone={tmp_path / 'backbone'}", f"save_path={tmp_path / 'run'}"]
    folder = train(load_config("demo", [*TINY, *places, *words]), "demo")
    return [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rate_decay_and_betas_of_the_resumed_run(tmp_path: Path, used: list[dict[str, Any]]) -> None:
    write(tmp_path / "backbone")
    run(tmp_path, *BEGUN, CONSTANT)
    assert {entry["lr"] for entry in used} == {1e-3}
    used.clear()
    new = ["train.learning_rate=4e-4", "train.weight_decay=0.5", "train.beta1=0.5", "train.beta2=0.75"]
    logged = run(tmp_path, *BEGUN, CONSTANT, *new, "dataloader.epoches=5", "resume=true")
    assert used
    for entry in used:
        assert (entry["lr"], entry["initial_lr"]) == (4e-4, 4e-4)
        assert (entry["weight_decay"], entry["betas"]) == (0.5, (0.5, 0.75))
    assert logged == pytest.approx([1e-3] * 3 + [4e-4] * 2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["train.scheduler=cosine"], []),  # longer only
        (["train.scheduler=wsd"], []),
        (["train.scheduler=cosine"], ["train.scheduler=constant"]),
        (["train.scheduler=constant"], ["train.scheduler=wsd", "train.decay_fraction=1"]),
        (["train.scheduler=cosine"], ["train.warmup_steps=5"]),
        (["train.scheduler=cosine"], ["train.total_steps=8", "train.min_lr_ratio=0.5"]),
    ],
)
def test_the_schedule_of_the_resumed_run(
    before: list[str], after: list[str], tmp_path: Path, used: list[dict[str, Any]]
) -> None:
    """The log has the rates that the optimizer used, those of the new schedule."""
    write(tmp_path / "backbone")
    run(tmp_path, *BEGUN, *before)
    used.clear()
    words = [*BEGUN, *before, *after, "dataloader.epoches=6", "resume=true"]
    logged = run(tmp_path, *words)
    new = load_config("demo", [*TINY, "save_path=run", *words]).train
    total = 6 if new.total_steps is None else new.total_steps
    expected = [
        1e-3 * lr_factor(step, new.scheduler, new.warmup_steps, total, new.min_lr_ratio, new.decay_fraction)
        for step in (3, 4, 5)
    ]
    assert len({entry["lr"] for entry in used}) == len(set(expected))
    assert list(dict.fromkeys(entry["lr"] for entry in used)) == pytest.approx(list(dict.fromkeys(expected)))
    assert logged[3:] == pytest.approx(expected)


def test_a_pretraining_goes_on_with_the_rate_that_it_is_given(tmp_path: Path, used: list[dict[str, Any]]) -> None:
    shape = ["model.hidden=16", "model.edge_hidden=8", "model.layers=2", "threads=1", "val_batches=0"]
    short = [*shape, f"save_path={tmp_path / 'run'}", "quality_every=0", "train.batch_size=8", "train.warmup=0"]
    pretrain_edm([*short, "train.steps=2", "train.decay_steps=2"])
    assert [entry["lr"] for entry in used] == pytest.approx([1e-3, 5e-4])
    used.clear()
    pretrain_edm([*short, "train.steps=4", "train.decay_steps=0", "train.lr=2e-4", "train.weight_decay=0.25"])
    assert [(entry["lr"], entry["weight_decay"]) for entry in used] == [(2e-4, 0.25)] * 2


def test_what_is_left_out_of_a_free_mapping_has_changed(tmp_path: Path) -> None:
    """In both directions: a run that asked its model for a value, and one that does."""
    asked, drawn = (load_config("demo", words) for words in (["dataloader.context={alpha: 60}"], []))
    assert changes(drawn, asked) == {"dataloader.context.alpha": (None, 60.0)}
    assert changes(asked, drawn) == {"dataloader.context.alpha": (60.0, None)}
    with pytest.raises(
        UserError, match=r"which you did not ask to change: dataloader\.context\.alpha=60\.0 \(here None\)"
    ):
        require_typed(tmp_path, asked, drawn, [])


def test_what_the_objective_does_not_read_has_not_changed(tmp_path: Path) -> None:
    """The demo has options of `nft`; another YAML for the same run with `awm` need not."""
    awm = ["train.objective=awm"]
    old = load_config("demo", awm)
    new = old.model_copy(update={"train": old.train.model_copy(update={"nft": type(old.train.nft)()})})
    assert "train.nft.times" in changes(old, new)
    require_typed(tmp_path, old, new, [])
    with pytest.raises(UserError, match=r"to change: train\.awm\.times=8 \(here 4\);"):
        require_typed(tmp_path, old, load_config("demo", [*awm, "train.awm.times=4"]), [])
    with pytest.raises(UserError, match=r"to change: train\.nft\.times=8 \(here 16\)"):  # which is read now
        require_typed(tmp_path, new, load_config("demo"), ["train.objective=nft"])
