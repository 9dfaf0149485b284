import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.chemistry import bonds as bonds_module
from atomrl.chemistry.bonds import (
    ORDERS,
    bond_orders,
    bond_table,
    known_elements,
    published_table,
    soft_valence,
    table_hash,
    valence,
)
from atomrl.data.batches import MoleculeBatch
from atomrl.util.errors import UserError

ROOT = Path(__file__).parents[2]
QM9_TYPES = np.array([1, 6, 7, 8, 9])


def batch_of(molecules):
    """(numbers, positions, mask) of [(atomic numbers, positions)], padded."""
    widest = max(len(numbers) for numbers, _ in molecules)
    numbers = torch.zeros(len(molecules), widest, dtype=torch.int64)
    positions = torch.zeros(len(molecules), widest, 3)
    for row, (kinds, places) in enumerate(molecules):
        numbers[row, : len(kinds)] = torch.tensor(kinds)
        positions[row, : len(kinds)] = torch.tensor(places)
    return numbers, positions, numbers > 0


@pytest.fixture(scope="module")
def golden():
    return json.loads((ROOT / "tests/data/molecule_rewards.json").read_text())


@pytest.fixture(scope="module")
def golden_batch(golden):
    content = golden["terminal_reward"]
    return batch_of(
        [
            (QM9_TYPES[kinds].tolist(), places)
            for kinds, places in zip(content["atom_types"], content["positions"], strict=True)
        ]
    )


@pytest.fixture(scope="module")
def plain():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("plain_stability")


def test_golden_vectors(golden, golden_batch):
    hard, soft = valence(*golden_batch), soft_valence(*golden_batch)
    found = {
        "stability": hard.molecule_stable,
        "atom_stability": hard.atom_stability,
        "valence_underbond": hard.underbond,
        "valence_overbond": hard.overbond,
        "valence_underbond_soft": soft[0],
        "valence_overbond_soft": soft[1],
    }
    for case in golden["terminal_reward"]["cases"]:
        for name, values in found.items():
            expected = np.array(case["out"][name], dtype=float)
            assert np.abs(values.double().numpy() - expected).max() <= 1e-5 * np.abs(expected).max(), name


def test_golden_geom_stability(golden, golden_batch):
    found = valence(*golden_batch)
    columns = found.molecule_stable, found.stable_atoms.sum(1), golden_batch[2].sum(1)
    expected = golden["geom_stability"]["values"]
    assert torch.stack(columns, dim=1)[: len(expected)].tolist() == expected


def test_identical_to_the_plain_loop(plain, qm9_test):
    noise = torch.randn(qm9_test.positions.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    for positions in (qm9_test.positions, qm9_test.positions + noise):
        batch = MoleculeBatch(qm9_test.numbers, positions, qm9_test.mask.float(), 0)
        assert plain.vectorised(batch) == plain.plain(batch)


def test_benchmark_runs(plain, qm9_test):
    batch = MoleculeBatch(qm9_test.numbers[:30], qm9_test.positions[:30], qm9_test.mask[:30].float(), 0)
    assert plain.compare(batch, repeats=2)["molecules"] == 30


def test_qm9_is_mostly_stable(qm9_test):
    found = valence(qm9_test.numbers, qm9_test.positions, qm9_test.mask)
    assert 0.92 < found.molecule_stable.double().mean() < 0.99
    assert 0.985 < found.stable_atoms.sum() / qm9_test.mask.sum() < 1


def test_orders_of_small_molecules():
    numbers, positions, _ = batch_of(
        [
            ([6, 8, 1, 1], [[0, 0, 0], [1.21, 0, 0], [-0.6, 0.93, 0], [-0.6, -0.93, 0]]),
            ([6, 7, 1], [[0, 0, 0], [1.16, 0, 0], [-1.07, 0, 0]]),
        ]
    )
    orders = bond_orders(numbers, positions)
    assert orders.dtype == torch.int64
    assert orders[0].tolist() == [[0, 2, 1, 1], [2, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert orders[1].tolist() == [[0, 3, 1, 0], [3, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("length", "order"), [(1.23, 2), (1.22999, 3), (1.39, 1), (1.38999, 2), (1.64, 0), (1.63999, 1)]
)
def test_thresholds_are_strict(length, order):
    positions = torch.tensor([[[0, 0, 0], [length, 0, 0]]], dtype=torch.float64)
    assert int(bond_orders(torch.tensor([[6, 6]]), positions)[0, 0, 1]) == order


def test_padding_and_order_of_atoms_do_not_matter(qm9_test):
    part = qm9_test[:20]
    wide = torch.nn.functional.pad(part.positions, (0, 0, 0, 5))
    numbers = torch.nn.functional.pad(part.numbers, (0, 5))
    shuffle = torch.randperm(numbers.shape[1], generator=torch.Generator().manual_seed(1))
    orders = bond_orders(part.numbers, part.positions)
    found = bond_orders(numbers[:, shuffle], wide[:, shuffle])
    back = shuffle.argsort()[: orders.shape[1]]
    assert torch.equal(found[:, back][:, :, back], orders)
    assert torch.equal(orders, orders.mT)
    one, two = (
        valence(part.numbers, part.positions, part.mask),
        valence(numbers[:, shuffle], wide[:, shuffle], numbers[:, shuffle] > 0),
    )
    assert torch.equal(one.atom_stability, two.atom_stability)
    assert torch.equal(one.underbond, two.underbond)


@pytest.mark.parametrize(
    ("bonds", "under_weight", "over_weight", "expected"),
    [
        (3, 1, 1, (0, 0)),
        (5, 1, 1, (0, 0)),
        (4, 1, 1, (0, 1)),  # both directions cost the same: the lower valence
        (4, 1, 2, (1, 0)),
        (4, 2, 1, (0, 1)),
        (4, 0, 1, (1, 0)),
        (2, 1, 1, (1, 0)),
        (2, 0, 1, (1, 0)),  # an order that costs nothing does not reach for the farther valence
        (6, 1, 1, (0, 1)),
    ],
)
def test_phosphorus_takes_the_cheaper_valence(bonds, under_weight, over_weight, expected):
    directions = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) * 1.6
    positions = torch.cat([torch.zeros(1, 3), directions[:bonds]])[None]
    numbers = torch.tensor([[15] + [9] * bonds])
    found = valence(numbers, positions, numbers > 0, under_weight, over_weight)
    assert (float(found.underbond), float(found.overbond)) == expected
    assert bool(found.stable_atoms[0, 0]) == (bonds in {3, 5})


def test_soft_approaches_hard(qm9_test):
    hard = valence(qm9_test.numbers, qm9_test.positions, qm9_test.mask)
    soft = soft_valence(qm9_test.numbers, qm9_test.positions, qm9_test.mask, temperature=1e-5)
    assert torch.allclose(soft[0], hard.underbond, atol=0.02)
    assert torch.allclose(soft[1], hard.overbond, atol=0.02)


def test_soft_against_the_formula():
    numbers, positions, mask = batch_of([([7, 8], [[0, 0, 0], [1.27, 0, 0]])])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    order = sigmoid((1.50 - 1.27) / 0.05) + sigmoid((1.26 - 1.27) / 0.05)  # N-O has no triple bond
    under, over = soft_valence(numbers, positions, mask, temperature=0.05)
    assert float(under) == pytest.approx((3 - order) + (2 - order), abs=1e-6)
    assert float(over) == 0


def test_coordinates_that_are_not_finite():
    numbers, positions, mask = batch_of(
        [([6, 1], [[0, 0, 0], [float("nan"), 0, 0]]), ([6, 1], [[0, 0, 0], [1.09, 0, 0]])]
    )
    found = valence(numbers, positions, mask)
    assert found.underbond.tolist() == [5, 3]
    assert not found.molecule_stable.any()
    under, over = soft_valence(numbers, positions, mask)
    assert under.isnan().tolist() == over.isnan().tolist() == [True, False]


def test_empty_and_single_atom_molecules():
    numbers = torch.tensor([[0, 0], [6, 0]])
    found = valence(numbers, torch.zeros(2, 2, 3), numbers > 0)
    assert found.molecule_stable.tolist() == [False, False]
    assert found.atom_stability.tolist() == [0, 0]
    assert bond_orders(numbers, torch.zeros(2, 2, 3)).sum() == 0
    assert bond_orders(numbers[:0], torch.zeros(0, 2, 3)).shape == (0, 2, 2)


def test_a_batch_of_any_size_needs_the_memory_of_a_part(qm9_test, monkeypatch):
    """What is looked at together changes nothing."""
    whole = valence(qm9_test.numbers, qm9_test.positions, qm9_test.mask)
    orders = bond_orders(qm9_test.numbers, qm9_test.positions)
    monkeypatch.setattr(bonds_module, "PAIRS_AT_ONCE", 7 * qm9_test.numbers.shape[1] ** 2 // 2)
    for name, values in vars(valence(qm9_test.numbers, qm9_test.positions, qm9_test.mask)).items():
        assert torch.equal(values, getattr(whole, name))
    assert torch.equal(bond_orders(qm9_test.numbers, qm9_test.positions), orders)


def test_elements_outside_the_table():
    numbers = torch.tensor([[26, 8]])
    positions = torch.tensor([[[0.0, 0, 0], [1.5, 0, 0]]])
    assert bond_orders(numbers, positions).sum() == 0
    with pytest.raises(UserError, match=r"element Fe: .*knows H, B, C"):
        valence(numbers, positions, numbers > 0)
    with pytest.raises(UserError, match="run from 8 to 119"):
        bond_orders(torch.tensor([[119, 8]]), positions)


def test_table_is_symmetric_and_nested():
    table = bond_table(torch.device("cpu"))
    assert torch.equal(table.thresholds, table.thresholds.mT)
    assert (table.thresholds.diff(dim=0) <= 0).logical_or(table.thresholds[1:].isneginf()).all()
    assert set(published_table()) >= {*ORDERS, "margins", "allowed_valence"}
    assert known_elements()[:3] == ["H", "B", "C"]
    assert len(table_hash()) == 64
