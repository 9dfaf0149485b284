"""A run whose reward remembers what it has drawn: part of the checkpoint, and of no other run."""

import json
import sys
from pathlib import Path

import pytest
import torch

from atomrl.cli import main
from atomrl.training.rl_module import RLModule

sys.path.insert(0, str(Path(__file__).parent))
from test_train_crystals import COMPONENTS, TINY, places

__all__ = ["places"]  # a fixture

FRESH = "{_target_: atomrl.rewards.fresh_formula.FreshFormulaReward, halved_at: 2}"
SHAPES = "{_target_: src.rl_module.components.StructureDiversityReward, normalize_fn: norm}"
GUARDED = "{_target_: src.rl_module.components.EnergyReward, normalize_fn: norm, min_entries: 1}"


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_stopped_and_continued_equals_uninterrupted(tmp_path: Path, places: list[str]) -> None:
    """The product of two components."""
    components = f"reward.components=[{SHAPES},{FRESH}]"
    options = [*TINY, *places, components, "reward.workers=1", "reward.combine=product"]
    words = ["train", "experiment=prototypes/rl_dng_grpo", *options, "validation.every=2", "train.total_steps=4"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*words, f"save_path={whole}", "dataloader.epoches=4"])
    main([*words, f"save_path={cut}", "dataloader.epoches=2"])
    main([*words, f"save_path={cut}", "dataloader.epoches=4", "resume=true"])
    first, second = lines(whole), lines(cut)
    for one, other in zip(first, second, strict=True):
        assert {name: value for name, value in one.items() if "seconds" not in name} == {
            name: value for name, value in other.items() if "seconds" not in name
        }
    assert [line["drawn_before"] > 0 for line in first] == [False, True, True, True]
    assert first[0]["raw_fresh_formula"] > first[3]["raw_fresh_formula"]
    assert {"product_reward_mean", "raw_structure_diversity"} <= first[0].keys()
    saved = [torch.load(run / "checkpoint_latest.pth", weights_only=True) for run in (whole, cut)]
    memory = saved[0]["reward_memory"]
    assert memory == saved[1]["reward_memory"]
    sound = round(sum(8 * line["sound_cells"] for line in first))
    assert sum(memory["drawn_before"].values()) == sound  # the validations' samples are not among them
    loaded = RLModule.load_from_checkpoint(cut)
    try:
        assert loaded.scorer.reward.memory() == memory
        table, _ = loaded.compute_rewards(loaded.rollout(loaded.plan.prompts(0))[0])
        assert loaded.scorer.reward.memory() == memory  # by hand nothing is remembered
        assert float(table.diagnostics["drawn_before"].nan_to_num().max()) > 0
    finally:
        loaded.close()


def test_pure_elements_and_bare_hulls_are_left_out(tmp_path: Path, places: list[str]) -> None:
    """Left out of the reward alone: the log's shares of cells and elements are as ever."""
    words = ["train", "experiment=prototypes/rl_dng_grpo", *TINY, *places, "reward.workers=1", "dataloader.epoches=1"]
    main([*words, f"reward.components=[{GUARDED}]", "reward.pure_elements=false", f"save_path={tmp_path / 'run'}"])
    [line] = lines(tmp_path / "run")
    assert 0 < line["failed_pure_element"] <= 8 * line["pure_elements"]
    assert line["failed_abstained"] > 0
    assert line["hull_entries"] == 0
    unsound = 8 * (1 - line["sound_cells"])
    assert line["failed"] == pytest.approx(line["failed_pure_element"] + line["failed_abstained"] + unsound)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"reward.components=[{COMPONENTS[1]},{FRESH[:-1]}, normalize_fn: std}}]", "normalize_fn=std of fresh_formula"),
        (f"reward.components=[{FRESH.replace('2', '0')}]", "FreshFormulaReward's halved_at must be above 0 samples"),
        ("reward.combine=mean", "reward.combine=mean: must be one of sum, product"),
    ],
)
def test_mistakes(
    tmp_path: Path, places: list[str], override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY, *places, f"reward.components=[{COMPONENTS[1]}]", "reward.combine=product"]
    with pytest.raises(SystemExit) as caught:
        main(["train", "experiment=prototypes/rl_dng_grpo", *options, override, f"save_path={tmp_path / 'run'}"])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1, error
