"""The property predictor against its formulas, and what its answers must not depend on."""

from dataclasses import replace

import pytest
import torch
from crystal_models import golden_vae, randomized, small_vae
from small_crystal_set import CRYSTALS, packed
from torch.nn import functional

from atomrl.core.records import Structures
from atomrl.evaluation.reconstruction import structures_of_batch
from atomrl.networks import predictor as predictor_module
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead, pool
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError

TARGETS = ("gap", "energy")
SHAPES = [
    PredictorConfig(pooling="mean", features=True),
    PredictorConfig(pooling="sum", features=True, hidden=(5, 3)),
    PredictorConfig(pooling="mean", features=False),
    PredictorConfig(pooling="sum", features=False, hidden=(2, 4)),
]


def predictor(config: PredictorConfig, vae: CrystalVAE | None = None) -> CrystalPredictor:
    """Random weights, and properties that are not standard."""
    torch.manual_seed(0)
    vae = small_vae() if vae is None else vae
    head = randomized(PropertyHead(config.inputs(vae.config), TARGETS, config), std=0.5)
    head.mean.copy_(torch.tensor([3.0, -40.0]))
    head.std.copy_(torch.tensor([0.5, 7.0]))
    return CrystalPredictor(vae, head, config)


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("padding", [0, 3])
def test_the_forward_pass_by_hand(config, padding):
    """On the golden VAE: crystal by crystal, atom by atom, layer by layer."""
    golden = golden_vae(padding)
    network = predictor(config, vae=golden.vae)
    weights = dict(network.head.named_parameters())

    def normed(x, layer):
        scaled = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5)
        return scaled * weights[f"layers.{layer}.weight"] + weights[f"layers.{layer}.bias"]

    def linear(x, layer):
        return weights[f"layers.{layer}.weight"] @ x + weights[f"layers.{layer}.bias"]

    start, expected = 0, []
    for size in golden.expected["in_num_atoms"].tolist():
        atoms = slice(start, start + size)
        start += size
        rows = [golden.expected["z"][atoms]] + ([golden.expected["enc_x"][atoms]] if config.features else [])
        x = torch.cat(rows, dim=1).sum(0)
        x = x / size if config.pooling == "mean" else x
        x = functional.silu(normed(linear(x, 0), 1))
        x = functional.silu(normed(linear(x, 4), 5))
        expected.append(linear(x, 8) * network.head.std + network.head.mean)
    with torch.no_grad():
        found = network(replace(golden.batch, frac_coords=golden.batch.frac_coords % 1.0))
    torch.testing.assert_close(found, torch.stack(expected).detach(), rtol=1e-4, atol=1e-4)


def test_widths():
    published = CrystalVAEConfig()
    assert PredictorConfig().inputs(published) == 520
    assert PredictorConfig(features=False).inputs(published) == 8
    assert PredictorConfig().widths(520) == (130, 260)
    assert PredictorConfig().widths(8) == (16, 16)  # D/4 = 2 would leave a sign
    assert PredictorConfig(hidden=(2, 4)).widths(8) == (2, 4)
    head = PropertyHead(520, TARGETS, PredictorConfig())
    assert [layer.out_features for layer in head.layers if isinstance(layer, torch.nn.Linear)] == [130, 260, 2]
    assert [layer.p for layer in head.layers if isinstance(layer, torch.nn.Dropout)] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "max"}, "pooling=max: must be one of mean, sum"),
        ({"hidden": (3, 0)}, "hidden=0: must be at least 1"),
        ({"hidden": (3, 4, 5)}, r"hidden=\(3, 4, 5\) is not of type tuple\[int, int\]"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_shapes_that_cannot_be(options, words):
    with pytest.raises(UserError, match=words):
        PredictorConfig(**options)


def test_standardized_and_restored_are_inverse():
    head = predictor(SHAPES[0]).head
    values = torch.tensor([[3.5, -33.0], [2.0, -40.0]], dtype=torch.float64)
    torch.testing.assert_close(head.standardized(values), torch.tensor([[1.0, 1.0], [-2.0, 0.0]]))
    torch.testing.assert_close(head.restored(head.standardized(values)), values)


@pytest.mark.parametrize("config", SHAPES)
def test_predictions_depend_on_the_crystal_alone(config, monkeypatch):
    """Not on its companions, on padding, on how many are encoded at once, or on the cell that an atom is listed in."""
    network = predictor(config)
    inside = [crystal.copy().translate_sites(range(len(crystal)), [0.1, 0.2, 0.3]) for crystal in CRYSTALS]
    samples = structures_of_batch(packed(inside).padded())  # no atom lies where coordinates jump
    together = network.predict(samples)
    assert set(together) == set(TARGETS)
    alone = [network.predict(from_pymatgen([crystal])) for crystal in inside]
    monkeypatch.setattr(predictor_module, "PAIRS_AT_ONCE", 1)
    seen: list[tuple[int, ...]] = []
    hook = network.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].mask.shape)))
    cut = network.predict(samples)
    hook.remove()
    assert seen == [(1, size) for size in sorted(map(len, CRYSTALS))]  # one by one, without padding
    assert samples.cell is not None
    generator = torch.Generator().manual_seed(0)
    moves = torch.randint(-2, 3, samples.positions.shape, generator=generator).float()
    elsewhere = samples.positions + moves @ samples.cell * samples.mask[..., None]
    moved = network.predict(Structures(samples.numbers, elsewhere, samples.mask, samples.cell))
    for name, values in together.items():
        assert values.shape == (len(CRYSTALS),)
        assert values.std() > 1e-3  # they do differ
        torch.testing.assert_close(values, torch.cat([one[name] for one in alone]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values, cut[name], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values, moved[name], rtol=1e-3, atol=1e-3)


def test_sums_grow_with_the_cell_and_means_do_not():
    """Two equal atoms listed twice: pooled rows of a supercell's kind, without the VAE's opinion on supercells."""
    network = predictor(SHAPES[0])
    batch = packed(CRYSTALS[:2]).padded()
    posterior = network.vae.encode(batch)
    sizes = batch.mask.sum(1, keepdim=True)
    for features in (True, False):
        mean = pool(network.vae, batch, PredictorConfig(pooling="mean", features=features))
        total = pool(network.vae, batch, PredictorConfig(pooling="sum", features=features))
        torch.testing.assert_close(total, mean * sizes)
    torch.testing.assert_close(total, posterior.mean.sum(1))


def test_what_cannot_be_read_is_nan_and_harms_nobody():
    network = predictor(SHAPES[0])
    samples = structures_of_batch(packed().padded())
    expected = network.predict(samples)["gap"]
    numbers, cell = samples.numbers.clone(), samples.cell.clone()
    numbers[1, 0] = 100  # the VAE's table ends at 99
    cell[2] = 0.0
    found = network.predict(Structures(numbers, samples.positions, samples.mask, cell))["gap"]
    assert found.isnan().tolist() == [False, True, True, *[False] * 5]
    torch.testing.assert_close(found[3:], expected[3:])
    assert network.predict(samples[slice(0, 0)])["gap"].shape == (0,)


def test_nothing_is_dropped_and_nothing_is_trained():
    network = predictor(SHAPES[0])
    samples = structures_of_batch(packed().padded())
    one, other = network.predict(samples), network.predict(samples)
    assert torch.equal(one["gap"], other["gap"])
    assert not any(parameter.requires_grad for parameter in network.vae.parameters())
    assert not one["gap"].requires_grad


def test_nothing_is_predicted_of_a_crystal_without_atoms() -> None:
    """What could not be read is judged as one, and a sum over no atoms would be a number."""
    crystals = from_pymatgen(CRYSTALS[:2])
    assert crystals.cell is not None
    empty = replace(crystals, mask=torch.zeros_like(crystals.mask), cell=torch.zeros_like(crystals.cell))
    found = predictor(PredictorConfig(pooling="sum", features=True)).predict(Structures.concatenate([crystals, empty]))
    for values in found.values():
        assert values.isfinite().tolist() == [True, True, False, False]
