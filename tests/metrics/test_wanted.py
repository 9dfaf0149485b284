"""Samples with a wanted property: counted by hand, and through `atomrl evaluate`."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from crystal_models import small_vae
from pymatgen.io.ase import AseAtomsAdaptor
from small_crystal_set import CRYSTALS

from atomrl.checkpoints.predictor import save_predictor
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.domains.crystals import CrystalDomain
from atomrl.evaluation.crystals import evaluate_crystals
from atomrl.evaluation.wanted import WantedJudge, draw_distributions
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from test_crystal_metrics import verdicts
from test_train_crystals import TINY, backbone, known_set


@pytest.fixture
def predictor(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    vae, config = small_vae(), PredictorConfig()
    head = PropertyHead(config.inputs(vae.config), ("gap", "density"), config)
    head.std.copy_(torch.tensor([3.0, 1.0]))
    save_predictor(tmp_path / "predictor", CrystalPredictor(vae, head, config), {})
    return tmp_path / "predictor"


def test_shares_by_hand(predictor: Path) -> None:
    """Of six: one is a copy, one known, one too large, one unknown."""
    table = verdicts(unique=[1, 1, 0, 1, 1, 1], novel=[1, 1, 1, 0, 1, 1], above=[0.0] * 6, compound=[1] * 6)
    values = np.array([-2.0, -1.0, -3.0, -4.0, 0.5, np.nan])
    metrics = evaluate_crystals(
        replace(table, predicted={"gap": values}), evaluator="fake", novelty_set="none", resamples=100
    )
    low = WantedJudge(str(predictor), "gap", -1.0, False, "gap").add_to(metrics, resamples=100)
    assert low.summary["gap_wanted"].value == pytest.approx(2 / 6)
    assert (low.summary["gap_wanted"].denominator, low.summary["gap_median"].denominator) == (6, 5)
    assert low.summary["gap_median"].value == -2.0
    assert low.definitions["gap_wanted"].label == "unique, novel, gap <= -1 (predicted)"
    assert low.conditions["gap_predicted_by"] == str(predictor)
    high = WantedJudge(str(predictor), "gap", -1.0, True, "gap").add_to(metrics, resamples=100)
    assert high.summary["gap_wanted"].value == pytest.approx(2 / 6)
    assert high.definitions["gap_wanted"].label == "unique, novel, gap >= -1 (predicted)"
    named = WantedJudge(str(predictor), "gap", -1.0, True, "gap (eV/atom)")
    assert named.figure == "evaluation_gap (eV_atom).svg"  # no folder
    assert [row.get("predicted_gap") for row in metrics.samples.rows()] == [-2.0, -1.0, -3.0, -4.0, 0.5, None]


def test_it_predicts_what_the_predictor_says(predictor: Path) -> None:
    judge = WantedJudge(str(predictor), "gap", 0.0, True, "gap")
    samples = from_pymatgen(CRYSTALS)
    np.testing.assert_array_equal(judge.predict(samples), judge.predictor.predict(samples)["gap"].numpy())
    with pytest.raises(UserError, match=r"evaluation\.wanted: the predictor in .* knows gap, density, and not mass"):
        WantedJudge(str(predictor), "mass", 0.0, True, "mass")


def test_the_figure_shows_every_column(predictor: Path, tmp_path: Path) -> None:
    judge = WantedJudge(str(predictor), "gap", 0.25, False, "gap")
    columns = {"base": np.array([0.0, 1.0, np.nan]), "trained 2": np.array([0.5])}
    draw_distributions(judge, columns, tmp_path / "gap.svg")
    text = (tmp_path / "gap.svg").read_text()
    assert all(word in text for word in ("base (2)", "trained 2 (1)", "wanted: &lt;= 0.25", 'id="trained-2"'))
    draw_distributions(judge, {"base": np.full(2, np.nan)}, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("{predictor: x, name: gap}", "0.gap: give at_most or at_least, one of them"),
        ("{predictor: x, name: gap, at_most: 1, at_least: 0}", "0.gap: give at_most or at_least, one of them"),
        ("{predictor: x, name: gap, at_must: 1}", "0.at_must: did you mean at_most?"),
        ("{name: gap, at_most: 1}", "0.predictor: must be given"),
        ("{predictor: x, name: gap, at_most: low}", "0.at_most='low' is not of type float | None"),
        ("gap", "0=gap: must be keys with values"),
    ],
)
def test_what_cannot_be(wanted: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("experiment/prototypes/rl_dng", [f"evaluation.wanted=[{wanted}]"])
    assert f"evaluation.wanted.{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_files_and_what_was_rewarded(predictor: Path, tmp_path: Path) -> None:
    """Two judges of one property have rows of their own, and only that which was paid for says so."""
    paid = f"{{_target_: atomrl.rewards.components.PredictorReward, predictor: {predictor}, target_name: gap}}"
    other = shutil.copytree(predictor, tmp_path / "other")
    wanted = [f"{{predictor: {folder}, name: gap, at_least: 0.0}}" for folder in (predictor, other)]
    options = [
        f"reward.reference_dataset={known_set(tmp_path / 'known')}",
        "reward.workers=1",
        f"reward.components=[{paid}]",
        f"evaluation.wanted=[{', '.join([*wanted, f'{{predictor: {predictor}, name: density, at_most: 0.0}}'])}]",
    ]
    run = tmp_path / "run"
    few = [*TINY, f"model.backbone={backbone(tmp_path / 'backbone')}", f"save_path={run}", "evaluation.samples=5"]
    main(["train", "experiment=prototypes/rl_dng_grpo", *few, *options])
    table = json.loads((run / "evaluation" / "evaluation.json").read_text())
    names = ("gap_wanted", "gap_median", "gap_2_wanted", "density_wanted")
    assert set(names) <= set(table["metrics"])
    assert {"gap_wanted", "reward_gap"} <= set(table["rewarded"])
    assert not {"gap_2_wanted", "density_wanted", "gap_median"} & set(table["rewarded"])
    assert all((run / "evaluation" / f"evaluation_{label}.svg").is_file() for label in ("gap", "gap_2", "density"))
    atoms = ase.io.read(run / "evaluation" / "trained.extxyz", index=":")
    crystals = from_pymatgen([AseAtomsAdaptor.get_structure(one) for one in atoms])
    predicted = WantedJudge(str(predictor), "gap", 0.0, True, "gap").predict(crystals)
    assert [one.info["predicted_gap"] for one in atoms] == pytest.approx(predicted, abs=1e-3)
    assert CrystalDomain().rewarded(load_config("experiment/prototypes/rl_dng_grpo", options)) == set(table["rewarded"])
