"""A regressor of a molecular property: what it must not depend on, and its linear part."""

import numpy as np
import pytest
import torch

from atomrl.core.records import Structures
from atomrl.networks.molecule_regressor import MoleculeRegressor, RegressorConfig
from atomrl.util.errors import UserError


def regressor(**shape) -> MoleculeRegressor:
    torch.manual_seed(0)
    network = MoleculeRegressor(RegressorConfig(hidden=16, edge_hidden=8, layers=2, **shape), "alpha").double()
    network.reference.copy_(torch.tensor([1.0, 8.0, 6.0, 5.0, 3.0, 2.0]))
    return network


def predicted(network: MoleculeRegressor, structures: Structures) -> torch.Tensor:
    return network.predict(structures)["alpha"]


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_it_depends_on_nothing_but_the_molecule(qm9_test: Structures, pooling: str) -> None:
    network, some = regressor(pooling=pooling), qm9_test[slice(0, 12)]
    found = predicted(network, some)
    assert found.std() > 0.1
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    moved = Structures(some.numbers, (some.positions @ turn + 3.0) * some.mask[..., None], some.mask)
    torch.testing.assert_close(predicted(network, moved), found, rtol=1e-4, atol=1e-4)
    order = torch.randperm(some.numbers.shape[1], generator=torch.Generator().manual_seed(2))
    shuffled = Structures(some.numbers[:, order], some.positions[:, order], some.mask[:, order])
    torch.testing.assert_close(predicted(network, shuffled), found)
    for row, size in enumerate(some.sizes.tolist()):
        alone = Structures(
            some.numbers[row : row + 1, :size], some.positions[row : row + 1, :size], some.mask[row : row + 1, :size]
        )
        torch.testing.assert_close(predicted(network, alone), found[row : row + 1])


def test_small_molecules_are_not_padded_to_the_largest(qm9_test: Structures, monkeypatch: pytest.MonkeyPatch) -> None:
    network, some = regressor(), qm9_test[slice(0, 12)]
    found = predicted(network, some)
    monkeypatch.setattr("atomrl.networks.molecule_regressor.PAIRS_AT_ONCE", bound := 3 * int(some.sizes.max()) ** 2)
    seen: list[torch.Size] = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    torch.testing.assert_close(predicted(network, some), found)
    assert sum(count for count, _ in seen) == 12
    assert all(count * atoms**2 <= bound for count, atoms in seen)
    assert len({atoms for _, atoms in seen}) > 1


def test_what_it_cannot_read_has_no_value(qm9_test: Structures) -> None:
    some = qm9_test[slice(0, 3)]
    numbers, positions = some.numbers.clone(), some.positions.clone()
    numbers[0, 0], positions[1, 0, 0] = 17, torch.inf
    found = predicted(regressor(), Structures(numbers, positions, some.mask))
    assert found.isnan().tolist() == [True, True, False]
    torch.testing.assert_close(found[2:], predicted(regressor(), some)[2:])
    assert len(predicted(regressor(), some[slice(0, 0)])) == 0


def test_the_linear_part_is_fitted_by_least_squares(qm9_test: Structures) -> None:
    network = regressor()
    counts = torch.stack([(qm9_test.numbers == z).sum(1) for z in (1, 6, 7, 8, 9)], dim=1).double()
    rng = np.random.Generator(np.random.PCG64(1))
    values = counts @ torch.tensor([2.0, 9.0, 7.0, 5.0, 3.0]).double() + 4.0
    noise = torch.from_numpy(rng.normal(0, 0.5, len(values)))
    network.fit_reference(qm9_test.numbers, values + noise)
    rows = torch.cat([counts, torch.ones(len(counts), 1)], dim=1)
    expected = np.linalg.lstsq(rows.numpy(), (values + noise).numpy(), rcond=None)[0]
    np.testing.assert_allclose(network.reference, expected, rtol=1e-6)
    assert float(network.scale) == pytest.approx(0.5, rel=0.15)
    torch.testing.assert_close(network.linear(qm9_test.numbers), values, rtol=0, atol=0.6)


def test_elements_must_be_some() -> None:
    with pytest.raises(UserError, match="symbols of elements"):
        RegressorConfig(elements=("H", "Xx"))
