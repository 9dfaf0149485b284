"""What no network can be made of is refused when its configuration is made, whoever asks."""

from functools import partial

import pytest
import torch

from atomrl.networks.conditions import Condition, ConditionModule
from atomrl.networks.crystal_vae import CrystalVAEConfig
from atomrl.networks.dit import DiTConfig
from atomrl.networks.edm import EDMConfig
from atomrl.networks.egnn import EGNNConfig
from atomrl.policies.molecule import element_numbers, encode
from atomrl.util.errors import UserError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(EGNNConfig, in_features=0), "in_features=0"),
        (partial(EGNNConfig, in_features=6, inv_sublayers=0), "inv_sublayers=0"),
        (partial(EGNNConfig, in_features=6, coords_range=0.0), "coords_range=0.0: must be positive"),
        (partial(EGNNConfig, in_features=6, aggregation="max"), "aggregation=max: must be one of sum, mean"),
        (partial(EDMConfig, hidden=0), "hidden=0: must be at least 1"),
        (partial(EDMConfig, norm_constant=torch.inf), "norm_constant=inf: must be finite and at least 0"),
        (
            partial(EDMConfig, normalization_factor=torch.inf),
            "normalization_factor=inf: must be positive and finite",
        ),
        (partial(EDMConfig, normalize_factors=(1.0,)), r"normalize_factors=\(1.0,\) is not of type tuple"),
        (partial(EDMConfig, normalize_factors=(1.0, -4.0, 10.0)), "normalize_factors=-4.0: must be positive"),
        (partial(EDMConfig, elements=("H", "H")), "each once"),
        (partial(EDMConfig, elements=("H", "Qq")), r"elements \['Qq'\] are not element symbols"),
        (partial(DiTConfig, mlp_ratio=0), "mlp_ratio=0"),
        (partial(DiTConfig, hidden=16, heads=3), "a width of 16 with 3 heads"),
        (partial(CrystalVAEConfig, latent=0), "latent=0"),
        (partial(CrystalVAEConfig, elements=1), "elements=1: must be at least 2"),
        (partial(CrystalVAEConfig, width=15, heads=3), "a width of 15 with 3 heads"),
    ],
)
def test_networks(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_condition_modules():
    with pytest.raises(UserError, match=r"\['a.b'\]: torch refuses these"):
        ConditionModule([Condition(name="a.b", kind="value")], 8)
    with pytest.raises(UserError, match="drop_prob=-1"):
        ConditionModule([Condition(name="a", kind="value")], 8, drop_prob=-1)


def test_atoms_that_no_column_stands_for():
    """They would be a row of zeros, which is no element."""
    config = EDMConfig(elements=("H", "C"))
    numbers, mask = torch.tensor([[6, 1, 0], [6, 8, 9]]), torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    positions = torch.randn(2, 3, 3)
    assert element_numbers(config).tolist() == [1, 6]
    clean = encode(numbers[:1], positions[:1], mask[:1], config)
    assert (clean[0, :, 3:] * 4).tolist() == [[0, 1], [1, 0], [0, 0]]
    with pytest.raises(UserError, match="the backbone knows H, C; the molecules also hold O, F"):
        encode(numbers, positions, mask, config)
    with pytest.raises(UserError, match="Z=200"):
        encode(torch.full_like(numbers, 200), positions, mask, config)
