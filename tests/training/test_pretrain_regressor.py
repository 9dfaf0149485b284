"""`atomrl pretrain regressor` on real QM9: it learns, goes on where it stopped, states its error; bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.checkpoints.regressor import is_regressor, load_regressor
from atomrl.cli import main
from atomrl.data.batches import pad
from atomrl.data.qm9 import load_qm9, split
from atomrl.data.qm9_properties import with_properties
from atomrl.networks.molecule_regressor import MoleculeRegressor, RegressorConfig
from atomrl.pretraining import regressor_run
from atomrl.pretraining.regressor_run import pretrain_regressor
from atomrl.util.errors import UserError

TINY = [
    "model.hidden=16",
    "model.edge_hidden=8",
    "model.layers=2",
    "train.batch_size=16",
    "train.warmup=2",
    "train.decay_steps=1",
    "threads=1",
    "val_every=1000",
    "val_batches=1",
]


@pytest.fixture(autouse=True)
def _fewer_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves and test set of QM9 are 2,000 molecules each."""

    def some(molecules):
        return {part: whole.select(np.arange(2000) * (len(whole) // 2000)) for part, whole in split(molecules).items()}

    monkeypatch.setattr(regressor_run, "split", some)


def test_it_beats_composition_and_size_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "train.steps=120",
        "train.lr=2e-3",
        "train.decay_steps=100",
        "train.ema_decay=0.9",
        "train.batch_size=32",
    ]
    shape = ["model.hidden=64", "model.edge_hidden=32"]
    main(["pretrain", "regressor", *TINY, *options, *shape, f"save_path={tmp_path}"])
    said = capsys.readouterr().out
    assert re.match(r"\d\d:\d\d:\d\d 11 of 120 steps: loss \d\.\d{3}; \S+ steps/s, \S+ \w+ left\n", said)
    card = json.loads((tmp_path / "model.json").read_text())
    found = card["held_out"]
    assert f"alpha: mean absolute error {found['mae']:.4g} Bohr^3 on 2,000 test molecules" in said
    assert found["mae"] < 0.9 * found["mae_by_composition"] < found["mae_by_composition"] < found["mae_by_size"]
    assert card["data"] == {"from": "QM9", "half": "first"}
    loaded = load_regressor(tmp_path)
    test = split(with_properties(load_qm9(), ["alpha"]))["test"].select(np.arange(2000) * 6)
    batch = pad(test)
    with torch.no_grad():
        own = (loaded.network(batch.numbers, batch.positions, batch.mask) - batch.properties["alpha"]).abs().mean()
    assert float(own) == pytest.approx(found["mae"], rel=1e-4)
    assert loaded.unit == "Bohr^3"
    assert is_regressor(tmp_path)


def test_a_resumed_regressor_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def run(name: str, steps: int) -> dict[str, torch.Tensor]:
        folder = pretrain_regressor([*TINY, f"save_path={tmp_path / name}", f"train.steps={steps}"])
        return load_regressor(folder).network.state_dict()

    run("cut", 3)
    resumed, straight = run("cut", 6), run("straight", 6)
    assert all(torch.equal(value, straight[name]) for name, value in resumed.items())
    for option, words in (
        ("half=second", "began with half=first"),
        ("target=gap", r"predicts \['alpha'\]"),
        ("model.elements=[C,H,N,O,F]", r"began with model\.elements=\('H', 'C', .*, not model\.elements=\('C', 'H', "),
    ):
        with pytest.raises(UserError, match=words):
            pretrain_regressor([*TINY, option, f"save_path={tmp_path / 'cut'}"])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("target=polarity", "target=polarity: QM9's properties are alpha"),
        ("half=third", "half=third: must be one of first, second or null"),
        ("model.elements=[H,C]", "QM9 also holds N, O, F"),
        ("model.pooling=max", "model.pooling=max"),
        ("train.batch_size=5000", "batches of 5000 out of 2000"),
    ],
)
def test_options_that_cannot_be(option: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        pretrain_regressor([*TINY, option, f"save_path={tmp_path / 'run'}"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no regressor at"):
        load_regressor(tmp_path / "nowhere")
    with pytest.raises(UserError, match="lacks the entry 'regressor'"):
        load_regressor(Path(regressor_run.__file__).parents[1] / "assets" / "edm_qm9_small")
    regressor_run.save_regressor(tmp_path, MoleculeRegressor(RegressorConfig(), "alpha"), "Bohr^3", {}, {})
    with pytest.raises(UserError, match="must hold the error on other molecules"):
        load_regressor(tmp_path)
