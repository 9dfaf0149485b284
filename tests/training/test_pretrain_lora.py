"""`atomrl pretrain ldm backbone=... lora.rank=...`: adapters alone are trained, and the folder holds them merged."""

import json
import sys
from pathlib import Path

import pytest
import torch
from crystal_models import randomized, small_vae
from small_crystal_set import write
from small_pretraining import SMALL

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone, save_crystal_backbone
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.pretraining.crystal_run import pretrain_ldm
from atomrl.util.errors import UserError

FORMULA = "conditions=[{name: formula, kind: composition}]"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("places")
    torch.manual_seed(0)
    denoiser = randomized(DiT(DiTConfig(hidden=16, depth=1, heads=2)))
    save_crystal_backbone(
        folder / "plain", CrystalBackbone(small_vae(), denoiser, 0.7, {2: 1}), {"frame": "first_atom"}
    )
    return [f"data={write(folder / 'data')}", f"backbone={folder / 'plain'}", "card_structures=2"]


def run(places: list[str], folder: Path, *more: str) -> CrystalBackbone:
    return load_crystal_backbone(
        pretrain_ldm([*SMALL, *places, f"save_path={folder}", "train.lr=1e-2", "lora.rank=3", *more])
    )


def changed(found: CrystalBackbone, places: list[str]) -> dict[str, int]:
    """{tensor of the denoiser that is not the backbone's: rank of the difference}."""
    began = load_crystal_backbone(places[1].partition("=")[2]).denoiser.state_dict()
    pairs = {name: value - began[name] for name, value in found.denoiser.state_dict().items()}
    return {name: int(torch.linalg.matrix_rank(by, atol=1e-5)) for name, by in pairs.items() if by.abs().max() > 0}


@pytest.mark.parametrize("more", [(), (FORMULA,)])
def test_adapters_beside_a_backbone(
    more: tuple[str, ...], places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed: pip install 'atomrl[lora]'")
    run(places, tmp_path / "cut", *more, "train.steps=2")
    resumed, straight = (run(places, tmp_path / name, *more, "train.steps=4") for name in ("cut", "straight"))
    for name, value in straight.denoiser.state_dict().items():
        assert torch.equal(value, resumed.denoiser.state_dict()[name]), name
    moved = changed(straight, places)
    block = "blocks.0."
    layers = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
    assert moved.keys() == {block + layer for layer in layers}
    assert {*moved.values()} <= {1, 2, 3}
    assert (straight.conditions is not None) == bool(more)
    if more:
        assert straight.conditions.proj[-1].weight.abs().max() > 0  # it begins at 0
    assert json.loads((tmp_path / "straight" / "model.json").read_text())["started_from"] in places[1]
    with pytest.raises(UserError, match=r"began with lora=\{'rank': 3, .*, not lora=\{'rank': 2,"):
        run(places, tmp_path / "cut", *more, "train.steps=5", "lora.rank=2")
    monkeypatch.setitem(sys.modules, "peft", None)
    run(places, tmp_path / "further", f"backbone={tmp_path / 'straight'}", *more, "lora.rank=0", "train.steps=1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("backbone=null",), r"lora\.rank=3: adapters stand beside weights that have learned something; give backbone"),
        (("lora.rank=17",), r"rank=17: blocks\.0\.attn\.in_proj_weight has 16 inputs .*; lower it \(lora\)"),
        (("lora.target_modules=[attention]",), r"the denoiser has no layer attention; it has .* \(lora\)"),
        (("lora.rank=0", "lora.alpha=2"), r"lora\.alpha and lora\.target_modules are about adapters, and lora\.rank=0"),
    ],
)
def test_adapters_that_cannot_be(words: tuple[str, ...], message: str, places: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(places, tmp_path / "run", *words, "train.steps=1")
    assert not (tmp_path / "run").exists()


def test_without_peft_adapters_are_one_line(places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'atomrl\[lora\]' \(lora\)"):
        run(places, tmp_path / "run", "train.steps=1")
