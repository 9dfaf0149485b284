"""An evaluation that is stopped and continued equals one that is not, and draws nothing twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import small_backbone
import torch
from small_crystal_set import CRYSTALS

from atomrl.checkpoints.backbone import load_backbone
from atomrl.cli import main
from atomrl.core.records import Prompts, Structures
from atomrl.core.rollout import rollout
from atomrl.evaluation import evaluate as evaluation
from atomrl.evaluation.evaluate import SamplePlan, draw
from atomrl.evaluation.kept_samples import KeptBatches, KeptSamples
from atomrl.report.page import unpacked
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError

PLAN = SamplePlan(count=12, time_step=5, seed=3, micro_batch_size=4)
CPU = torch.device("cpu")


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return small_backbone.write(tmp_path / "backbone")


class Counted:
    """`rollout`, which notes the samples of each batch and is interrupted in the batch of a number."""

    def __init__(self, interrupted: int | None = None) -> None:
        self.interrupted = interrupted
        self.batches: list[list[int]] = []

    def __call__(self, policy, prompts: Prompts, config):
        if len(self.batches) == self.interrupted:
            raise KeyboardInterrupt
        self.batches.append(prompts.sample_ids.tolist())
        return rollout(policy, prompts, config)


def tensors(record: Prompts | Structures) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(record).items() if isinstance(value, torch.Tensor)}


def same(first: Prompts | Structures, second: Prompts | Structures) -> bool:
    pairs = zip(tensors(first).items(), tensors(second).items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


@pytest.mark.parametrize("each", [1, 2])
def test_what_was_drawn_is_not_drawn_again(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    model, kept = load_backbone(str(backbone)), KeptSamples(tmp_path / "kept")
    whole = draw(model, PLAN, each, CPU, "whole")
    first, second, third = Counted(interrupted=2), Counted(), Counted()
    monkeypatch.setattr(evaluation, "rollout", first)
    with pytest.raises(KeyboardInterrupt):
        draw(model, PLAN, each, CPU, "stopped", kept)
    monkeypatch.setattr(evaluation, "rollout", second)
    continued = draw(model, PLAN, each, CPU, "continued", kept)
    assert len(first.batches) == 2
    assert second.batches
    assert [name for batch in first.batches + second.batches for name in batch] == whole[0].sample_ids.tolist()
    assert all(same(*pair) for pair in zip(continued, whole, strict=True))
    monkeypatch.setattr(evaluation, "rollout", third)
    again = draw(model, PLAN, each, CPU, "again", kept)
    assert third.batches == []
    assert same(again[1], whole[1])
    kept.forget()
    assert not kept.folder.exists()


@pytest.mark.parametrize("changed", ["seed", "steps", "weights", "settings", "count"])
def test_samples_of_anything_else_are_not_taken(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    model, plan, folder = load_backbone(str(backbone)), PLAN, tmp_path / "kept"
    draw(model, plan, 1, CPU, "first", KeptSamples(folder))
    plan = replace(
        plan,
        seed=4 if changed == "seed" else plan.seed,
        time_step=6 if changed == "steps" else plan.time_step,
        count=13 if changed == "count" else plan.count,
    )
    if changed == "weights":
        with torch.no_grad():
            next(model.network.parameters()).flatten()[0] += 1e-3
    monkeypatch.setattr(evaluation, "rollout", counted := Counted())
    kept = KeptSamples(folder, "another sampler" if changed == "settings" else "")
    drawn = draw(model, plan, 1, CPU, "second", kept)
    assert sorted(name for batch in counted.batches for name in batch) == list(range(plan.count))
    assert same(drawn[1], draw(model, plan, 1, CPU, "honest")[1])


def test_crystals_keep_their_cells(tmp_path: Path) -> None:
    crystals = from_pymatgen(CRYSTALS[:3])
    batches = KeptBatches(tmp_path / "kept")
    assert same(batches.get(0, lambda: crystals), crystals)
    assert same(batches.get(0, lambda: pytest.fail("drawn again")), crystals)
    assert crystals.cell is not None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "00007.safetensors").write_bytes(b"12345678 and no tensors")
    with pytest.raises(UserError, match=r"00007\.safetensors cannot be read .*: delete it") as caught:
        KeptBatches(tmp_path).get(7, lambda: pytest.fail("drawn"))
    assert "\n" not in str(caught.value)


def test_an_evaluation_goes_on_after_ctrl_c(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(folder: str, drawn: Callable[..., object]) -> None:
        monkeypatch.setattr(evaluation, "rollout", drawn)
        words = ["evaluate", "--base", str(backbone), "--num-molecules", "80", "--time-step", "3"]
        main([*words, "--output", str(tmp_path / folder)])

    first, second, honest = Counted(interrupted=1), Counted(), Counted()
    with pytest.raises(SystemExit) as ended:
        evaluate("cut", first)
    assert ended.value.code == 130
    said = capsys.readouterr()
    assert (
        f"stopped; what was sampled and judged is kept in {tmp_path / 'cut' / 'unfinished'}: continue with atomrl eval"
        in said.out
    )
    assert said.err == "interrupted\n"
    evaluate("cut", second)
    evaluate("straight", honest)
    assert first.batches + second.batches == honest.batches
    cut, straight = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("cut", "straight")
    )
    tables = {"evaluation.json", "evaluation.md", "evaluation.parquet"}
    assert cut.keys() == straight.keys() == {"base.extxyz", "base.sdf", *tables}
    table = pq.read_table(tmp_path / "cut" / "evaluation.parquet")
    assert table.column("sample_id").to_pylist() == [f"{row:05d}" for row in range(80)]
    assert table.equals(pq.read_table(tmp_path / "straight" / "evaluation.parquet"))
    assert cut["base.extxyz"] == straight["base.extxyz"]


def test_the_table_at_the_end_of_a_training_goes_on_after_ctrl_c(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["train", "--config-name", "demo", *small_backbone.TINY, f"model.backbone={backbone}", f"save_path={run}"]
    words += ["evaluation.samples=80", "evaluation.time_step=3", "dataloader.epoches=1"]
    monkeypatch.setattr(evaluation, "rollout", first := Counted(interrupted=1))
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 130
    assert f"continue with atomrl resume {run}\n" in capsys.readouterr().out
    trained = (run / "metrics.jsonl").read_text()
    monkeypatch.setattr(evaluation, "rollout", second := Counted())
    main([*words, "resume=true"])
    assert (run / "metrics.jsonl").read_text() == trained
    assert f"report -> {run / 'report.html'}\n" in capsys.readouterr().out
    assert [side["held"] for side in unpacked((run / "report.html").read_text())["sides"]] == [80, 80]
    half = len(first.batches + second.batches) // 2
    assert [
        sorted(name for batch in side for name in batch)
        for side in ((first.batches + second.batches)[:half], (first.batches + second.batches)[half:])
    ] == [list(range(80))] * 2  # the base, then the trained model, nothing twice
    assert {path.name for path in (run / "evaluation").iterdir()} >= {"evaluation.json", "trained.sdf"}
    assert not (run / "evaluation" / "unfinished").exists()
