"""The shipped model that is asked for a polarizability, and the shipped regressor that judges it."""

import json

import ase.io
import pytest
import torch

from atomrl.checkpoints.backbone import load_backbone
from atomrl.checkpoints.regressor import is_regressor, load_regressor, property_of
from atomrl.checkpoints.shipped import REGRESSORS, located
from atomrl.cli import main
from atomrl.structures.molecules import Geometry
from atomrl.structures.padding import join
from atomrl.util.errors import UserError


def test_it_heeds_what_it_is_asked_for(tmp_path, capsys):
    """Of one size: molecules asked for little are less polarizable than those asked for much, by the regressor."""
    regressor = load_regressor("qm9_alpha_regressor")
    assert regressor.held_out["mae"] < 0.1 * regressor.held_out["mae_by_size"]
    assert (property_of("qm9_alpha_regressor"), is_regressor("qm9_alpha_regressor")) == ("alpha", True)
    means = []
    for value in ("65.0", "85.0"):
        path = tmp_path / f"{value}.extxyz"
        few = ["--num-samples", "16", "--time-step", "30", "--seed", "7"]
        words = ["--backbone", "edm_qm9_alpha", "--sizes", "18", "--context", f"alpha={value}"]
        main(["sample", *words, *few, "--output", str(path)])
        molecules = [Geometry(one.numbers, one.positions) for one in ase.io.read(path, index=":")]
        means.append(float(regressor.network.predict(join(molecules))["alpha"].median()))
    assert means[1] - means[0] > 8.0


def test_its_card():
    """Where it came from, and nothing of the machine that trained it."""
    card = json.loads((located("edm_qm9_alpha") / "model.json").read_text())
    assert card["conditioning"] == ["alpha"]
    assert card["started_from"] == "edm_qm9_small"
    assert card["data"] == {"from": "QM9", "half": "second"}
    backbone = load_backbone("edm_qm9_alpha")
    assert backbone.network.config.context_features == 1
    first, small = (load_backbone(name).network.state_dict() for name in ("edm_qm9_alpha", "edm_qm9_small"))
    assert first.keys() == small.keys()
    assert any(not torch.equal(first[name], small[name]) for name in first if first[name].shape == small[name].shape)


def test_an_unknown_regressor_is_told_the_shipped_one():
    with pytest.raises(UserError, match=f"no regressor at nowhere: give one of {REGRESSORS[0]}, a folder"):
        load_regressor("nowhere")
