"""The documented experiments on band gaps: what they ask for, what they miss, and that they train with all in place."""

import json
import re
import runpy
import sys
from pathlib import Path

import mp_20_files
import pytest

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.training.requirements import check_needs
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from test_train_crystals import backbone

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ["mp_20/rl_bandgap", "alex_mp_20_bandgap/rl_bandgap"]
PREDICTORS = dict(
    zip(EXPERIMENTS, ["checkpoints/mp_20_bandgap", "checkpoints/alex_mp_20_bandgap_predictor"], strict=True)
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_they_ask_for(name):
    """A gap of 3 eV beside composition diversity at half its weight; a narrower clip on Alex-MP-20."""
    config, plain = load_config(f"experiment/{name}"), load_config("experiment/mp_20/rl_dng")
    predictor, *others = config.reward.components
    assert predictor == {
        "_target_": "atomrl.rewards.components.PredictorReward",
        "predictor": PREDICTORS[name],
        "target_name": "dft_band_gap",
        "target_value": 3.0,
        "clip_min": 0.0,
        "weight": 1.0,
        "normalize_fn": "norm",
    }
    assert others == [{**plain.reward.components[-1], "weight": 0.5}]
    assert others[0]["_target_"].endswith(".CompositionDiversityReward")
    assert config.train.clip_range == {"mp_20/rl_bandgap": 1e-3, "alex_mp_20_bandgap/rl_bandgap": 1e-4}[name]
    for section in ("dataloader", "evaluation"):
        assert getattr(config, section) == getattr(plain, section)
    assert {**vars(config.train), "clip_range": None} == {**vars(plain.train), "clip_range": None}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_they_say_what_is_missing(tmp_path, name, monkeypatch, capsys):
    """All of it in one line, each with the way to get it; the data with its columns, the models with their commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_rl.py", f"experiment={name}"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "src" / "train_rl.py"), run_name="__main__")
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    data = f"data/{name.partition('/')[0]}"
    for missing in ("train.csv", "val.csv", "hull.json"):
        assert re.search(rf"{data}/{re.escape(missing)} \([^;]+\)", line), line
    assert re.search(rf"checkpoints/\w+ \(.*atomrl pretrain vae data={data} .*atomrl pretrain ldm data={data} ", line)
    commands = re.search(rf"{PREDICTORS[name]} \(.*(atomrl pretrain predictor [^;]*)\)$", line)
    assert commands, line
    assert "dft_band_gap" in commands[1]
    assert commands[1].endswith(f"save_path={PREDICTORS[name]}")
    if "alex" in name:
        assert "material_id, cif and dft_band_gap" in line
        assert "github.com/microsoft/mattergen/tree/main/data-release/alex-mp" in line
    assert not list(tmp_path.iterdir())


def test_a_predictor_of_ones_own_takes_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = ["model.backbone=crystal_small", "reward.reference_dataset=prototypes", "reward.hull=null"]
    for name in EXPERIMENTS:
        with pytest.raises(UserError, match=rf": {PREDICTORS[name]} \([^;]*\)$"):
            check_needs(load_config(f"experiment/{name}", own))
        component = "{_target_: atomrl.rewards.components.PredictorReward, predictor: mine, target_name: gap}"
        check_needs(load_config(f"experiment/{name}", [*own, f"reward.components=[{component}]"]))


def test_it_trains_once_all_is_in_place(tmp_path, monkeypatch, capsys):
    """On eight crystals with invented gaps: the command that `needs` names makes the predictor that the run takes."""
    monkeypatch.chdir(tmp_path)
    mp_20_files.write_csv(tmp_path, monkeypatch)
    mp_20_files.write_hull(tmp_path)
    backbone(tmp_path / "checkpoints" / "mp_20")
    how = load_config("experiment/mp_20/rl_bandgap").needs["checkpoints/mp_20_bandgap"]
    few = ["train.steps=2", "train.batch_size=4", "val_batches=1", "val_every=2", "threads=1"]
    main([*how.partition("atomrl ")[2].split(), *few])
    said = capsys.readouterr().out
    assert "dft_band_gap: 8 of 8 training crystals have it" in said
    assert "dft_band_gap: mean absolute error" in said
    small = ["model.time_step=5", "dataloader.epoches=1", "dataloader.sample_group_size=2"]
    small += ["dataloader.each_prompt_sample=4", "evaluation.samples=4", "reward.workers=1", "threads=1"]
    small += ["train.exploded_above=1e5", "log.tensorboard=false", "save_path=run"]
    monkeypatch.setattr(sys, "argv", ["train_rl.py", "experiment=mp_20/rl_bandgap", *small])
    runpy.run_path(str(ROOT / "src" / "train_rl.py"), run_name="__main__")
    [line] = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["grad_norm"] > 0
    assert line["raw_dft_band_gap"] < 0  # minus a squared distance
    assert 0 <= line["dft_band_gap_reward_mean"] <= 1
    table = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert "reward_dft_band_gap" in table["rewarded"]
    row = table["metrics"]["reward_dft_band_gap"]["columns"]
    assert row["base"]["value"] < 0
    assert 0 < row["trained"]["denominator"] <= 4
