"""The denoiser against golden vectors; layouts, padding and the start as the identity."""

import pytest
import torch
from crystal_models import GoldenLDM, golden_ldm, randomized
from golden import error
from torch import Tensor

from atomrl.networks.conditions import guide
from atomrl.networks.dit import PRESETS, DiT, DiTConfig
from atomrl.util.errors import UserError

EXACT = 1e-6


@pytest.fixture(scope="module")
def golden() -> GoldenLDM:
    return golden_ldm()


def stacked(output: Tensor) -> Tensor:
    """(B, N, 2D) as recorded: noise over variance, (B, 2N, D)."""
    return torch.cat(output.chunk(2, dim=-1), dim=1).detach()


@pytest.mark.parametrize("training", [False, True])
def test_golden_outputs(golden, training):
    case = golden.expected
    with torch.set_grad_enabled(training):
        plain = golden.denoiser(case["z"], case["t"], golden.mask)
        conditioned = golden.denoiser(case["z"], case["t"], golden.mask, case["y_cfg"][:3])
    assert error(stacked(plain), case["out"]) < EXACT
    assert error(stacked(conditioned), case["out_y"]) < EXACT


def test_golden_guidance(golden):
    case = golden.expected
    with torch.no_grad():
        embedded = golden.conditions.guidance_embedding(case["band_gap"][:, None])
        doubled = golden.denoiser(
            torch.cat([case["z"]] * 2), torch.cat([case["t"]] * 2), torch.cat([golden.mask] * 2), embedded
        )
    assert error(embedded, case["y_cfg"]) < EXACT
    guided = stacked(guide(doubled, 2.0))
    assert error(torch.cat([guided, guided]), case["out_cfg"]) < EXACT


def batch(sizes=(5, 2), width=8) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = (torch.arange(width) < torch.tensor(sizes)[:, None]).double()
    return torch.randn(len(sizes), width, 8, dtype=torch.float64), torch.tensor([3, 700]), mask


def small(**changes) -> DiT:
    torch.manual_seed(0)
    return randomized(DiT(DiTConfig(hidden=16, depth=2, heads=2, **changes)), std=0.2).double()


def test_channels_do_not_depend_on_padding():
    latents, time, mask = batch()
    network = small()
    with torch.no_grad():
        wide = network(latents, time, mask)
        garbage = network(latents + 5 * (1 - mask[..., None]), time, mask)
        alone = network(latents[1:, :2], time[1:], mask[1:, :2])
    torch.testing.assert_close(garbage, wide, rtol=0, atol=1e-12)
    torch.testing.assert_close(wide[1:, :2], alone, rtol=0, atol=1e-12)
    assert wide[1, 2:].abs().max() == 0


def test_published_layout_reads_rows_across_atoms():
    """Noise of atom i from row i of the (2N, D) view, that is from half i % 2 of atom i // 2; variance N rows on."""
    latents, time, _ = batch()
    mask = torch.ones(2, 8, dtype=torch.float64)
    channels, published = small(), small(layout="published")
    with torch.no_grad():
        plain, rows = channels(latents, time, mask), published(latents, time, mask)
    for atom in range(8):
        for part, row in ((slice(0, 8), atom), (slice(8, 16), 8 + atom)):
            half = slice(8 * (row % 2), 8 * (row % 2) + 8)
            torch.testing.assert_close(rows[:, atom, part], plain[:, row // 2, half])


def test_published_layout_depends_on_the_padded_width():
    latents, time, mask = batch()
    network = small(layout="published")
    with torch.no_grad():
        wide, alone = network(latents, time, mask), network(latents[1:, :2], time[1:], mask[1:, :2])
    torch.testing.assert_close(wide[1:, :2, :8], alone[..., :8])
    assert (wide[1:, :2, 8:] - alone[..., 8:]).abs().max() > 1e-2


def test_a_new_denoiser_predicts_nothing_and_then_learns():
    latents, time, mask = batch()
    network = DiT(DiTConfig(hidden=16, depth=1, heads=2)).double()
    out = network(latents, time, mask)
    assert out.abs().max() == 0
    (out - 1).square().sum().backward()
    assert network.final_layer.linear.bias.grad.abs().min() > 0


def test_presets():
    assert set(PRESETS) == {"S", "B", "L"}
    assert DiTConfig.preset("B", layout="published") == DiTConfig(
        latent=8, hidden=768, depth=12, heads=12, mlp_ratio=4, layout="published"
    )
    assert (DiTConfig.preset("L").depth, DiTConfig.preset("L").hidden, DiTConfig.preset("L").heads) == (24, 1024, 16)


def test_unknown_layout():
    with pytest.raises(UserError, match="layout=rows: must be one of channels, published"):
        DiTConfig(layout="rows")


def test_bfloat16_autocast_is_near_and_trains():
    network = randomized(DiT(DiTConfig(latent=4, hidden=32, depth=2, heads=2)))
    latents, mask = torch.randn(3, 6, 4), torch.ones(3, 6)
    mask[1, 4:] = 0
    exact = network(latents, torch.tensor([3, 500, 999]), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(latents, torch.tensor([3, 500, 999]), mask)
    assert error(rounded.float().detach(), exact.detach()) < 0.05
    rounded.float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
