"""Adapters as far as they need no peft: what can have one, their weights merged, and what is refused."""

import sys

import pytest
import torch
from crystal_models import randomized

from atomrl.cli import main
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.networks.lora import adapt, merged
from atomrl.networks.lora_options import LoraOptions
from atomrl.util.errors import UserError

SHAPE = DiTConfig(hidden=16, depth=2, heads=2)


def test_merged_weights_by_hand():
    """Of a layer and of an attention, whose adapter is that of its projection; the rest stays."""
    weights = {
        "fc1.base_layer.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "fc1.base_layer.bias": torch.tensor([5.0, 6.0]),
        "fc1.lora_A.default.weight": torch.tensor([[1.0, 0.0]]),
        "fc1.lora_B.default.weight": torch.tensor([[10.0], [20.0]]),
        "attn.base_layer.in_proj_weight": torch.zeros(3, 1),
        "attn.base_layer.out_proj.weight": torch.ones(1, 1),
        "attn.lora_A.default.weight": torch.tensor([[2.0]]),
        "attn.lora_B.default.weight": torch.tensor([[1.0], [2.0], [3.0]]),
    }
    found = merged(weights, 0.5, "here")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "fc1.weight": [[6.0, 2.0], [13.0, 4.0]],
        "fc1.bias": [5.0, 6.0],
        "attn.in_proj_weight": [[1.0], [2.0], [3.0]],
        "attn.out_proj.weight": [[1.0]],
    }
    assert weights["fc1.base_layer.weight"][0, 0] == 1  # the adapters' own stay


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc1.lora_B.default.weight": torch.ones(3, 1)}, "here: the adapter of fc1 does not fit this layer"),
        ({"fc1.lora_B.default.weight": None}, "here: the adapter of fc1 does not fit this layer"),
        ({"fc1.base_layer.weight": None}, "here: the adapter of fc1 does not fit this layer"),
        ({"fc1.lora_A.other.weight": torch.ones(1, 2)}, "here holds several adapters, default.weight, other.weight"),
    ],
)
def test_adapters_that_fit_no_layer(changes, message):
    weights = {
        "fc1.base_layer.weight": torch.ones(2, 2),
        "fc1.lora_A.default.weight": torch.ones(1, 2),
        "fc1.lora_B.default.weight": torch.ones(2, 1),
    }
    with pytest.raises(UserError, match=message):
        merged({name: tensor for name, tensor in {**weights, **changes}.items() if tensor is not None}, 1.0, "here")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 17}, r"rank=17: blocks\.0\.attn\.in_proj_weight has 16 inputs and 48 outputs, and a rank above 16"),
        ({"rank": 9, "target_modules": ("x_embedder",)}, "x_embedder has 8 inputs and 16 outputs, and a rank above 8"),
        (
            {"rank": 2, "target_modules": ("attn", "q_proj")},
            r"the denoiser has no layer q_proj; it has x_embedder, t_embedder\.mlp\.0, .*, attn, attn\.in_proj_weight, "
            r"attn\.out_proj, mlp\.fc1, mlp\.fc2, .*, final_layer\.linear$",
        ),
        ({"rank": 2, "target_modules": ("c1",)}, "the denoiser has no layer c1"),  # no whole word of a name
    ],
)
def test_adapters_that_the_denoiser_cannot_have(options, message):
    with pytest.raises(UserError, match=message):
        adapt(DiT(SHAPE), LoraOptions(**options), 0)


def test_a_missing_peft_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"the package peft, which is not installed: pip install 'atomrl\[lora\]'"):
        adapt(randomized(DiT(SHAPE)), LoraOptions(rank=2), 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.lora.rank=2"], "model.lora: only the denoiser of crystals can have adapters"),
        (
            ["experiment=prototypes/rl_dng", "model.lora.alpha=2"],
            "model.lora.alpha and model.lora.target_modules are about adapters, and model.lora.rank=0 means none",
        ),
        (
            ["experiment=prototypes/rl_dng", "model.lora.rank=2", "model.lora.target_modules=[]"],
            "model.lora.target_modules=[] leaves nothing to train",
        ),
        (["experiment=prototypes/rl_dng", "model.lora.rank=-1"], "model.lora.rank=-1: must be at least 0"),
        (["experiment=prototypes/rl_dng", "model.lora.dropout=0.1"], "unknown configuration key model.lora.dropout"),
        (["experiment=prototypes/rl_dng", "model.lora.rank=2", "model.lora.alpha=0"], "model.lora.alpha=0"),
        (
            ["experiment=prototypes/rl_dng", "model.lora.rank=161"],
            "rank=161: blocks.0.attn.in_proj_weight has 160 inputs and 480 outputs, and a rank above 160 adds nothing; "
            "lower it (model.lora)",
        ),
    ],
)
def test_adapters_that_a_run_cannot_have(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *words, f"save_path={tmp_path / 'run'}", "evaluation.samples=0"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_scale():
    assert [LoraOptions(rank=4).scale, LoraOptions(rank=4, alpha=2.0).scale] == [2.0, 0.5]
