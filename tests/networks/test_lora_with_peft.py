"""Adapters by peft on the crystal denoiser: without effect at first, alone trained, merged to the same predictions."""

import pytest
import torch
from crystal_models import randomized, small_policy
from torch import nn
from torch.optim.swa_utils import AveragedModel

pytest.importorskip("peft", reason="the extra lora is not installed: pip install 'atomrl[lora]'")

import peft

from atomrl.networks.conditional_dit import ConditionalDiT
from atomrl.networks.conditions import Condition
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.networks.lora import adapt, merged
from atomrl.networks.lora_options import LoraOptions

SHAPE = DiTConfig(hidden=16, depth=2, heads=2)
EVERYWHERE = ("x_embedder", "t_embedder.mlp.0", "mlp.2", "attn", "fc1", "fc2", "adaLN_modulation.1", "linear")


def denoiser():
    torch.manual_seed(0)
    return randomized(DiT(SHAPE), std=0.2)


def inputs():
    torch.manual_seed(1)
    return (
        torch.randn(3, 5, 8),
        torch.tensor([1, 500, 999]),
        torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])[[0, 1, 1]],
    )


def moved(model, std=0.3):
    """Adapters as after a training."""
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=std)
    return model


@pytest.mark.parametrize("targets", [("attn", "fc1", "fc2"), EVERYWHERE, ("in_proj_weight",), ("out_proj",)])
def test_from_no_effect_to_merged_weights(targets):
    plain, adapted, options = denoiser(), denoiser(), LoraOptions(rank=3, target_modules=targets)
    adapt(adapted, options, seed=0)
    assert torch.equal(adapted(*inputs()), plain(*inputs()))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in adapted.named_parameters() if ".lora_" in name}
    layers = {name.partition(".lora_")[0].replace(".base_layer", "") for name in trained}
    assert ("blocks.1.attn" in layers) == bool({"attn", "in_proj_weight"} & {*targets})
    assert ("blocks.1.attn.out_proj" in layers) == bool({"attn", "out_proj"} & {*targets})
    moved(adapted)(*inputs()).square().sum().backward()
    assert all((parameter.grad is None) != parameter.requires_grad for parameter in adapted.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in adapted.parameters() if parameter.requires_grad)
    answer = adapted(*inputs())
    assert (answer - plain(*inputs())).abs().max() > 0.1
    plain.load_state_dict(merged(adapted.state_dict(), options.scale, "here"))
    torch.testing.assert_close(plain(*inputs()), answer, rtol=1e-4, atol=1e-5)


def test_the_random_matrices_are_those_of_the_seed():
    """What was drawn before does not count, and what is drawn afterwards stays the same."""
    downs = []
    for seed, drawn in ((0, 3), (0, 5), (1, 3)):
        model = denoiser()
        torch.manual_seed(drawn)
        expected = torch.rand(1)
        torch.manual_seed(drawn)
        adapt(model, LoraOptions(rank=2), seed)
        assert torch.equal(torch.rand(1), expected)
        downs.append(model.state_dict()["blocks.0.attn.lora_A.default.weight"])
    assert torch.equal(downs[0], downs[1])
    assert not torch.equal(downs[0], downs[2])


def test_alpha_scales_what_an_adapter_says():
    answers = []
    for alpha in (2.0, 4.0):
        model = denoiser()
        adapt(model, LoraOptions(rank=2, alpha=alpha, target_modules=("final_layer.linear",)), 0)
        answers.append(moved(model)(*inputs()) - denoiser()(*inputs()))
    torch.testing.assert_close(answers[1], 2 * answers[0], rtol=1e-4, atol=1e-5)


def test_what_embeds_conditions_is_trained_whole():
    torch.manual_seed(0)
    model = ConditionalDiT(SHAPE, [Condition(name="gap", kind="value")], 0.1)
    adapt(model, LoraOptions(rank=2), 0)
    whole = {name for name, parameter in model.named_parameters() if parameter.requires_grad and ".lora_" not in name}
    assert whole == {f"condition_module.{name}" for name, _ in model.condition_module.named_parameters()}


def test_an_average_pairs_the_right_parameters():
    """Whether the model was asked before or not: peft moves a parameter of the attention in each forward pass."""
    model = denoiser()
    adapt(model, LoraOptions(rank=2), 0)
    names = [name for name, _ in model.named_parameters()]
    average = AveragedModel(model)
    moved(model)(*inputs())
    assert [name for name, _ in model.named_parameters()] == names
    for _ in range(2):
        average.update_parameters(model)
    assert torch.equal(average.module(*inputs()), model(*inputs()))


def test_frozen_copies_share_what_is_not_trained():
    policy = small_policy()
    adapt(policy.current, LoraOptions(rank=2), 0)
    policy.keep_reference()
    policy.follow(0.0)
    for copied in (policy.initial, policy.followed):
        for own, other in zip(copied.parameters(), policy.current.parameters(), strict=True):
            assert (own is other) == (not other.requires_grad)
            assert not own.requires_grad
    before = {name: value.clone() for name, value in policy.current.state_dict().items()}
    began = policy.current(*inputs())
    end = moved(policy.current)(*inputs())
    with policy.reference():
        assert torch.equal(policy.answering(*inputs()), began)
    policy.follow(0.25)
    for name, value in policy.followed.state_dict().items():
        torch.testing.assert_close(value, 0.25 * before[name] + 0.75 * policy.current.state_dict()[name])
    with policy.old():
        followed = policy.answering(*inputs())
    assert min((followed - other).abs().max() for other in (began, end)) > 1e-3


class Perceptron(nn.Module):
    """Layers as a published denoiser has them."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(8, 16), "fc2": nn.Linear(16, 8)})

    def forward(self, features):
        return self.mlp["fc2"](self.mlp["fc1"](features).relu())


def test_peft_merges_to_the_same_weights():
    torch.manual_seed(0)
    model = peft.get_peft_model(Perceptron(), peft.LoraConfig(r=2, lora_alpha=6, target_modules=["fc1", "fc2"]))
    state, prefix = moved(model).state_dict(), "base_model.model."
    assert f"{prefix}mlp.fc1.lora_A.default.weight" in state
    found = merged({name.removeprefix(prefix): value.clone() for name, value in state.items()}, 3.0, "here")
    torch.testing.assert_close(found, dict(model.merge_and_unload().state_dict()))
    assert found.keys() == Perceptron().state_dict().keys()
