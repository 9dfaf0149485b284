"""Energies above a hull and features of a VAE, as metrics."""

import math

import numpy as np
import pytest
import torch
from crystal_models import small_vae
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON
from pymatgen.core import Composition

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.core.records import Structures
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.measures.measure import BatchMetrics, SoundSamples
from atomrl.measures.physics import HullProvider, vae_feature_provider, vae_features
from atomrl.rewards.components import EnergyReward, StructureDiversityReward
from atomrl.structures.crystals import from_pymatgen, to_pymatgen
from atomrl.util.errors import UserError

KEY = HullKey("fake-1", "MP2020", "set-1")
PHASES = [("Na", -1.3), ("Cl2", -1.8), ("NaCl", -3.4), ("Cs", -0.9), ("Si", -5.4)]


def hull_of(key=KEY):
    return Hull(key, [HullEntry(Composition(formula), energy, formula) for formula, energy in PHASES])


class FakeForceField:
    """-3 eV/atom for everything; the third crystal fails."""

    model_id, correction, elements = "fake-1", "MP2020", frozenset(range(1, 95))

    def __init__(self):
        self.closed = 0

    def evaluate(self, structures):
        sizes = structures.sizes.tolist()
        good = [Evaluation(-3.0 * size, np.full((size, 3), np.nan), None) for size in sizes]
        return [Evaluation.failed(sizes[row], "scf") if row == 2 else result for row, result in enumerate(good)]

    def close(self):
        self.closed += 1


def batch_of(*crystals):
    tensors = from_pymatgen(crystals)
    return SoundSamples(tensors, to_pymatgen(tensors))


def test_energies_above_the_hull():
    force_field = FakeForceField()
    provider = HullProvider(force_field, hull_of())
    batch = batch_of(ROCK_SALT, CAESIUM_CHLORIDE, ROCK_SALT, PEROVSKITE, SILICON)
    metrics = BatchMetrics(batch, dict.fromkeys(provider.names, provider))
    above = metrics["e_above_hull"]
    # CsCl has no compound beside it: the mixture is half Cs, half Cl
    np.testing.assert_allclose(above.values[[0, 1, 4]], [0.4, -3.0 + (0.9 + 1.8) / 2, 2.4], atol=1e-9)
    assert above.reasons == (None, None, "scf", "element_outside_hull", None)
    assert above.values[2:4].isnan().all()
    assert metrics["energy_per_atom"].reasons == (None, None, "scf", None, None)
    assert metrics["energy_per_atom"].values.nan_to_num(7.0).tolist() == [-3.0, -3.0, 7.0, -3.0, -3.0]
    assert metrics["hull_holds_compound"].values.tolist() == [1, 0, 1, 0, 0]
    assert metrics["hull_entries"].values.tolist() == [1, 0, 1, 0, 0]
    reward = EnergyReward().compute(list(batch.crystals), metrics_obj=metrics)
    np.testing.assert_allclose(reward, [-0.4, 0.0, -1.0, -1.0, -1.0], atol=1e-9)
    provider.close()
    assert force_field.closed == 1


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (HullKey("fake-2", "MP2020", "set-1"), "model_id"),
        (HullKey("fake-1", "none", "set-1"), "correction"),
        (HullKey("fake-1", "MP2020", "set-2"), "data_version"),
    ],
)
def test_a_hull_of_another_scale_is_refused(key, named):
    with pytest.raises(UserError, match=named):
        HullProvider(FakeForceField(), hull_of(key), data_version="set-1")


def test_chgnet_on_its_own_hull():
    force_field = CHGNetForceField(device="cpu")
    with pytest.raises(UserError, match="model_id"):
        HullProvider(force_field, hull_of())
    key = HullKey(force_field.model_id, force_field.correction, "by hand")
    provider = HullProvider(force_field, hull_of(key))
    assert force_field.model_id in provider.description
    assert "by hand" in provider.description
    found = provider.measure(batch_of(ROCK_SALT))
    # the measured formation energy, -2.13 eV/atom, below the elements of Materials Project, -1.31 and -1.84
    assert found["energy_per_atom"].values.item() == pytest.approx(-2.13 - (1.31 + 1.84) / 2, abs=0.1)
    assert found["e_above_hull"].values.item() == pytest.approx(found["energy_per_atom"].values.item() + 3.4)


@pytest.fixture(scope="module")
def vae():
    return small_vae().eval()


def test_features_are_means_over_atoms(vae):
    crystals = [ROCK_SALT, CAESIUM_CHLORIDE, PEROVSKITE]
    provider = vae_feature_provider(vae, from_pymatgen([PEROVSKITE, SILICON]))
    measured = provider.measure(batch_of(*crystals))
    structure, composition = measured["structure_features"], measured["composition_features"]
    assert structure.values.shape == (3, vae.config.latent)
    assert structure.reference.shape == (2, vae.config.latent)
    table = vae.encoder.atom_type_embedder.weight.detach()
    expected = torch.stack([table[[site.specie.Z for site in crystal]].mean(0) for crystal in crystals])
    torch.testing.assert_close(composition.values.float(), expected)
    # padding has no say, and a reference is encoded like a sample
    torch.testing.assert_close(structure.values[2:].float(), structure.reference[:1], atol=1e-5, rtol=1e-4)
    assert structure.reasons == (None,) * 3
    assert provider.names == ("structure_features", "composition_features")


def test_one_large_cell_does_not_widen_all_others(vae, monkeypatch):
    """Among many small cells; each crystal keeps its row."""
    crystals, asked = [PEROVSKITE, ROCK_SALT, SILICON * (4, 3, 3), CAESIUM_CHLORIDE] * 2, []
    alone = [vae_features(vae, from_pymatgen([crystal])) for crystal in crystals]
    monkeypatch.setattr(vae, "encode", lambda batch, encode=vae.encode: asked.append(batch.mask.shape) or encode(batch))
    monkeypatch.setattr("atomrl.measures.physics.PAIRS_AT_ONCE", 4 * len(PEROVSKITE) ** 2)
    found = vae_features(vae, from_pymatgen(crystals))
    large = max(map(len, crystals))
    assert [width for _, width in asked].count(large) == 2  # each by itself
    assert all(count * width**2 <= 4 * len(PEROVSKITE) ** 2 for count, width in asked if width < large)
    for name, values in found.items():
        together = torch.cat([one[name] for one in alone])
        torch.testing.assert_close(values, together, atol=1e-5, rtol=1e-4)


def test_features_serve_the_diversity_reward(vae):
    provider = vae_feature_provider(vae, from_pymatgen([PEROVSKITE, SILICON, ROCK_SALT]))
    batch = batch_of(ROCK_SALT, CAESIUM_CHLORIDE, PEROVSKITE, SILICON)
    scores = StructureDiversityReward().compute(
        list(batch.crystals), metrics_obj=BatchMetrics(batch, dict.fromkeys(provider.names, provider))
    )
    assert scores.values.isfinite().all()
    assert scores.values.std() > 0


def test_what_cannot_be_encoded(vae):
    good = from_pymatgen([ROCK_SALT, ROCK_SALT, ROCK_SALT])
    numbers, cell = good.numbers.clone(), good.cell.clone()
    numbers[1, 0] = vae.config.elements
    cell[2, 1] = cell[2, 0]
    bad = Structures(numbers, good.positions, good.mask, cell)
    features = vae_features(vae, bad)
    assert features["structure_features"].isfinite().all(1).tolist() == [True, False, False]
    assert features["composition_features"].isfinite().all(1).tolist() == [True, False, True]
    assert all(math.isfinite(value) for value in features["structure_features"][0].tolist())
    with pytest.raises(UserError, match="2 reference crystals are not finite"):
        vae_feature_provider(vae, bad)
    with pytest.raises(UserError, match="0 structures"):
        vae_feature_provider(vae, good[:0])
