"""The VAE against golden vectors; reconstruction, loss and padding against their definitions."""

import math
from dataclasses import replace

import pytest
import torch
from crystal_models import GoldenVAE, golden_vae, small_vae
from golden import error

from atomrl.core.records import Structures
from atomrl.networks.crystal_vae import Decoded, Posterior, structures_of, vae_loss
from atomrl.structures.tensors import CrystalTensors, cell_from_parameters, cell_parameters

EXACT = 1e-5


@pytest.fixture(params=[0, 3], ids=["tight", "padded"], scope="module")
def golden(request) -> GoldenVAE:
    return golden_vae(request.param)


@pytest.fixture(params=[True, False], ids=["with_gradients", "without"])
def gradients(request):
    """Torch takes another path through its transformer layers where no gradient is asked for."""
    with torch.set_grad_enabled(request.param):
        yield


def test_encoder(golden, gradients):
    posterior, mask, expected = golden.vae.encode(golden.batch), golden.mask, golden.expected
    moments = torch.cat([posterior.mean, posterior.log_variance], dim=-1)[mask]
    assert error(posterior.features[mask].detach(), expected["enc_x"]) < EXACT
    assert error(moments.detach(), expected["moments"]) < EXACT
    assert error(posterior.mean[mask].detach(), expected["z"]) < EXACT
    assert error(posterior.kl()[mask].detach(), expected["kl"]) < EXACT
    assert error(posterior.kl()[mask].mean().detach(), expected["kl_loss"][0]) < EXACT
    assert posterior.mean[~mask].abs().sum() == 0


def test_decoder_heads(golden, gradients):
    decoded, mask = golden.vae.decode(golden.padded(golden.expected["z"]), golden.mask), golden.mask
    expected = golden.expected
    assert error(decoded.type_logits[mask].detach(), expected["dec_atom_types"]) < EXACT
    assert error(decoded.frac_coords[mask].detach(), expected["dec_frac_coords"]) < EXACT
    assert error(decoded.lengths.detach(), expected["dec_lengths"]) < EXACT
    assert error(decoded.angles.detach(), expected["dec_angles"]) < EXACT


def test_gelu_is_exact_on_each_device(golden):
    """Torch's fast path has the tanh approximation on a GPU; a layer whose activation it does not know stays out."""
    vae, batch = small_vae().eval(), golden.batch
    layers = [*vae.encoder.transformer.layers, *vae.decoder.transformer.layers]
    for device, known in (("cpu", True), ("meta", False), ("cpu", True)):
        with torch.no_grad():
            here = vae.to_empty(device=device)
            here.decode(here.encode(batch.to(torch.device(device))).mean, batch.mask.to(device))
        assert [layer.activation_relu_or_gelu > 0 for layer in layers] == [known] * len(layers)


def test_reconstruction(golden):
    with torch.no_grad():
        structures = golden.vae.reconstruct(golden.padded(golden.expected["z"]), golden.mask)
    assert structures.cell is not None
    assert error(structures.cell, golden.expected["rec_lattices"]) < EXACT
    assert error(structures.positions[golden.mask], golden.expected["rec_cart"]) < EXACT
    assert torch.equal(structures.numbers[golden.mask], golden.expected["rec_types"])
    assert structures.numbers[~golden.mask].sum() == 0
    # The recorded cells are nearly flat, so coordinates are compared before they lose digits in an inverse.
    with torch.no_grad():
        decoded = golden.vae.decode(golden.padded(golden.expected["z"]), golden.mask)
    assert error(decoded.frac_coords[golden.mask], golden.expected["rec_frac"]) < EXACT


def test_targets_are_those_of_the_cells():
    golden = golden_vae()
    lengths, angles = cell_parameters(golden.expected["in_lattices"])
    scale = golden.mask.sum(1, keepdim=True) ** (1 / 3)
    assert error(lengths / scale, golden.expected["in_lengths_scaled"]) < EXACT
    assert error(angles, golden.expected["in_angles_radians"]) < EXACT


def test_cell_parameters_round_trip():
    torch.manual_seed(0)
    lengths = 3 + 4 * torch.rand(20, 3, dtype=torch.float64)
    angles = math.radians(70) + math.radians(40) * torch.rand(20, 3, dtype=torch.float64)
    cell = cell_from_parameters(lengths, angles)
    found_lengths, found_angles = cell_parameters(cell)
    torch.testing.assert_close(found_lengths, lengths)
    torch.testing.assert_close(found_angles, angles)
    assert torch.equal(cell[:, 2, :2], torch.zeros(20, 2, dtype=torch.float64))
    assert torch.equal(cell[:, 0, 1], torch.zeros(20, dtype=torch.float64))


def decoded_of(types: list[int]) -> Decoded:
    """Heads of one cubic crystal that say these types."""
    logits = torch.nn.functional.one_hot(torch.tensor([types]), 100).float()
    coords = torch.tensor([[[0.0, 0, 0], [1.5, -0.5, 0.5], [0.25, 0.25, 0.25]]])[:, : len(types)]
    return Decoded(logits, torch.full((1, 3), 2.0), torch.full((1, 3), math.pi / 2), coords)


def test_type_zero_becomes_hydrogen():
    structures = structures_of(decoded_of([0, 8, 0]), torch.tensor([[True, True, False]]))
    assert structures.numbers.tolist() == [[1, 8, 0]]


def test_lengths_grow_with_the_number_of_atoms_and_coordinates_are_not_wrapped():
    structures = structures_of(decoded_of([11, 17, 3]), torch.tensor([[1.0, 1.0, 0.0]]))
    edge = 2 * 2 ** (1 / 3)
    torch.testing.assert_close(structures.cell, edge * torch.eye(3)[None], atol=1e-6, rtol=0)
    torch.testing.assert_close(structures.positions[0, 1], edge * torch.tensor([1.5, -0.5, 0.5]))
    assert structures.positions[0, 2].abs().sum() == 0


def test_batch_of_structures():
    golden = golden_vae()
    batch = golden.batch
    positions = batch.frac_coords @ batch.cell
    again = CrystalTensors.of(Structures(batch.numbers, positions, golden.mask, batch.cell))
    torch.testing.assert_close(again.frac_coords, batch.frac_coords, atol=1e-6, rtol=0)
    flat = batch.cell.clone()
    flat[1] = 0
    nan = CrystalTensors.of(Structures(batch.numbers, positions, golden.mask, flat)).frac_coords.isnan()
    assert nan.all(dim=-1).all(dim=-1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="no cell"):
        CrystalTensors.of(Structures(batch.numbers, positions, golden.mask))


def test_log_variance_is_clamped():
    vae, golden = small_vae(), golden_vae()
    with torch.no_grad():
        vae.quant_conv.weight.mul_(1e4)
        log_variance = vae.encode(golden.batch).log_variance
    assert log_variance.min() == -30
    assert log_variance.max() == 20


def test_kl_is_that_of_gaussians():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, torch.exp(log_variance / 2)), normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(Posterior(mean, log_variance, mean).kl(), expected)


def test_loss_has_all_its_terms():
    golden = golden_vae()
    with torch.no_grad():
        terms = vae_loss(golden.vae, golden.batch, torch.zeros(3, 6, 8))  # z = mean, whose heads are recorded
    case = golden.expected
    logits = torch.log_softmax(case["dec_atom_types"], dim=-1)
    expected = {
        "types": -logits[torch.arange(13), case["in_atom_types"]].mean(),
        "lengths": (case["dec_lengths"] - case["in_lengths_scaled"]).square().mean(),
        "angles": (case["dec_angles"] - case["in_angles_radians"]).square().mean(),
        "frac_coords": (case["dec_frac_coords"] - case["in_frac_coords"]).square().mean(),
        "kl": case["kl_loss"][0],
    }
    expected["loss"] = (
        expected["types"]
        + expected["lengths"]
        + 10 * expected["angles"]
        + 10 * expected["frac_coords"]
        + 1e-5 * expected["kl"]
    )
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=EXACT), name


def test_loss_ignores_padding():
    tight, padded = golden_vae(), golden_vae(4)
    torch.manual_seed(0)
    normals = torch.randn(3, 10, 8)
    garbage = replace(padded.batch, frac_coords=torch.where(padded.mask[..., None], padded.batch.frac_coords, 7.0))
    with torch.no_grad():
        one = vae_loss(tight.vae, tight.batch, normals[:, :6])
        other = vae_loss(padded.vae, garbage, normals)
    for name in one:
        assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-5), name


def test_training_lowers_each_term():
    torch.manual_seed(0)
    vae, batch = small_vae(), golden_vae().batch
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    first = None
    for _ in range(60):
        terms = vae_loss(vae, batch, torch.randn(3, 6, 8))
        first = first or {name: float(value.detach()) for name, value in terms.items()}
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    for name in ("types", "lengths", "angles", "frac_coords", "loss"):
        assert float(terms[name].detach()) < 0.5 * first[name], name
