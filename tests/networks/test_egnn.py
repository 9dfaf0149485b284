"""The network against golden vectors, its symmetries, its gradient, and the plain implementation."""

import copy

import pytest
import torch
from golden import EDM_CASES, WALKS, GoldenEDM, error, load_edm

from atomrl.diffusion.edm import project
from atomrl.networks.edm import EDMConfig, EDMNetwork
from benchmarks.plain_edm import PlainEDM


@pytest.fixture(params=EDM_CASES, scope="module")
def golden(request) -> GoldenEDM:
    return load_edm(request.param)


def time_of(golden, value):
    return torch.full((len(golden.mask),), value)


def small_network(**changes) -> EDMNetwork:
    """Random weights, float64, with coordinate updates large enough to matter."""
    torch.manual_seed(3)
    network = EDMNetwork(EDMConfig(hidden=12, edge_hidden=10, layers=2, inv_sublayers=2, **changes)).double()
    for name, parameter in network.named_parameters():
        if name.endswith("coord_mlp.4.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def molecules(sizes=(5, 3), features=5):
    torch.manual_seed(4)
    mask = (torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]).double()
    latents = project(torch.randn(len(sizes), max(sizes), 3 + features, dtype=torch.float64), mask)
    return latents, torch.rand(len(sizes), dtype=torch.float64), mask


VARIANTS = [
    {},
    {"attention": False},
    {"tanh": False, "aggregation": "mean"},
    {"sin_embedding": True},
    {"normalization_factor": 4.0},
]


@pytest.fixture(params=VARIANTS, ids=str)
def network(request) -> EDMNetwork:
    return small_network(**request.param)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("steps", "s"), WALKS)
def test_golden_noise(golden, steps, s, training):
    with torch.set_grad_enabled(training):
        noise = golden.network(
            golden.expected["z_t"], time_of(golden, (s + 1) / steps), golden.mask, golden.context
        ).detach()
    assert error(noise, golden.expected[f"T{steps}_s{s}_eps"]) < golden.tolerance


def test_plain_implementation_matches_golden_noise(golden):
    plain = PlainEDM(golden.network.config, golden.network.state_dict())
    for steps, s in WALKS:
        with torch.no_grad():
            noise = plain(golden.expected["z_t"], time_of(golden, (s + 1) / steps), golden.mask, golden.context)
        assert error(noise, golden.expected[f"T{steps}_s{s}_eps"]) < golden.tolerance


def test_gradient_matches_ordinary_autograd(golden):
    """Of the weights and of the latents, float64, against the plain implementation."""
    network = copy.deepcopy(golden.network).double()
    plain = PlainEDM(network.config, network.state_dict())
    mask, context = golden.mask.double(), golden.context
    context = None if context is None else context.double()
    weights = torch.randn(golden.expected["z_t"].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for module in (network, plain):
        latents = golden.expected["z_t"].double().requires_grad_()
        time = time_of(golden, 0.5).double()
        (module(latents, time, mask, context) * weights).sum().backward()
        gradients.append(latents.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)
    expected = plain.gradients()
    for name, parameter in network.dynamics.egnn.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-8, atol=1e-9)


def test_gradient_by_finite_differences(network):
    latents, time, mask = molecules(sizes=(3, 2))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    first = network.dynamics.egnn.get_submodule("e_block_0")
    checked = [first.gcl_0.edge_mlp[0].weight, first.gcl_equiv.coord_mlp[2].bias, first.gcl_equiv.coord_mlp[4].weight]
    if network.config.attention:
        checked += [first.gcl_0.att_mlp[0].weight, first.gcl_0.att_mlp[0].bias]
    for parameter in checked:
        parameter.requires_grad_(True)
    inputs = (latents.requires_grad_(), *checked)
    assert torch.autograd.gradcheck(lambda z, *_: network(z, time, mask), inputs, fast_mode=True)


def test_training_and_inference_agree(network):
    latents, time, mask = molecules()
    trained = network(latents, time, mask)
    with torch.no_grad():
        torch.testing.assert_close(network(latents, time, mask), trained.detach(), rtol=1e-10, atol=1e-12)


def test_rotation_and_reflection(network):
    latents, time, mask = molecules()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turned = torch.cat([latents[..., :3] @ turn, latents[..., 3:]], dim=-1)
    with torch.no_grad():
        before, after = network(latents, time, mask), network(turned, time, mask)
    torch.testing.assert_close(after[..., :3], before[..., :3] @ turn, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(after[..., 3:], before[..., 3:], rtol=1e-9, atol=1e-10)


def test_translation(network):
    """The noise is that of differences of positions: a common shift does not change it."""
    latents, time, mask = molecules()
    shift = torch.zeros_like(latents)
    shift[..., :3] = torch.tensor([1.0, -2.0, 0.5]) * mask[..., None]
    with torch.no_grad():
        torch.testing.assert_close(
            network(latents + shift, time, mask), network(latents, time, mask), rtol=1e-9, atol=1e-10
        )


def test_permutation(network):
    latents, time, mask = molecules()
    order = torch.randperm(mask.shape[1])
    with torch.no_grad():
        before, after = network(latents, time, mask), network(latents[:, order], time, mask[:, order])
    torch.testing.assert_close(after, before[:, order], rtol=1e-9, atol=1e-10)


def test_padding_changes_nothing(network):
    latents, time, mask = molecules()
    wide = torch.nn.functional.pad(latents, (0, 0, 0, 4))
    with torch.no_grad():
        narrow = network(latents, time, mask)
        padded = network(wide, time, torch.nn.functional.pad(mask, (0, 4)))
        alone = network(latents[1:, :3], time[1:], mask[1:, :3])
    torch.testing.assert_close(padded[:, : mask.shape[1]], narrow, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(narrow[1:, :3], alone, rtol=1e-10, atol=1e-12)
    assert padded[:, mask.shape[1] :].abs().max() == 0
    assert narrow[1, 3:].abs().max() == 0


def test_position_noise_has_no_mean(network):
    latents, time, mask = molecules()
    with torch.no_grad():
        noise = network(latents, time, mask)
    torch.testing.assert_close(noise[..., :3].sum(1), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_one_atom_stays():
    latents, time, mask = molecules(sizes=(1,))
    with torch.no_grad():
        noise = small_network()(latents, time, mask)
    assert noise[..., :3].abs().max() == 0
    assert torch.isfinite(noise).all()


def test_bfloat16_autocast_trains():
    """Pre-training runs like this: near the float32 answer, gradients in the parameters' dtype."""
    network = small_network().float()
    latents, time, mask = (tensor.float() for tensor in molecules())
    with torch.no_grad():
        exact = network(latents, time, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        noise = network(latents, time, mask)
    noise.square().sum().backward()
    assert noise.dtype == torch.float32
    assert error(noise.detach(), exact) < 0.1
    assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())


def test_conditional_model_wants_a_context():
    network = small_network(context_features=1)
    with pytest.raises(ValueError, match="conditional"):
        network(*molecules())
