"""What is wrong with a geometry is found before a force field is asked, for a whole batch at once."""

import numpy as np
import pytest
import torch

from atomrl.core.records import Structures
from atomrl.force_fields.base import Evaluation
from atomrl.structures.molecules import Geometry, check_geometries, odd_electrons, split

WATER = ([8, 1, 1], [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def batch(*molecules):
    """Structures of (numbers, positions) pairs, padded."""
    widest = max(len(numbers) for numbers, _ in molecules)
    numbers = torch.zeros(len(molecules), widest, dtype=torch.int64)
    positions = torch.zeros(len(molecules), widest, 3)
    mask = torch.zeros(len(molecules), widest, dtype=torch.bool)
    for row, (elements, coordinates) in enumerate(molecules):
        size = len(elements)
        numbers[row, :size] = torch.tensor(elements, dtype=torch.int64)
        positions[row, :size] = torch.tensor(coordinates).reshape(size, 3)
        mask[row, :size] = True
    return Structures(numbers, positions, mask)


def line(*places, element=6):
    return [element] * len(places), [[place, 0.0, 0.0] for place in places]


@pytest.mark.parametrize(
    ("molecule", "reason"),
    [
        (WATER, None),
        (([], []), "no_atoms"),
        (([1], [[0.0, 0.0, 0.0]]), None),
        (line(0.0, 0.0), "overlap"),
        (line(0.0, 1.4, 1.79), "overlap"),
        (line(0.0, 1.4, 1.81), None),
        (line(0.0, float("nan")), "nonfinite"),
        (line(0.0, float("inf")), "nonfinite"),
        (line(0.0, 1.4, 6.3), None),
        (line(0.0, 1.4, 6.5), "exploded"),
        (line(0.0, 1e30), "exploded"),
        (line(*[4.9 * place for place in range(11)]), None),
        (line(*[4.9 * place for place in range(12)]), "exploded"),
        (line(0.0, 1.4, element=87), "element"),
        (line(0.0, 1.4, element=0), "element"),
    ],
)
def test_reasons(molecule, reason):
    assert check_geometries(batch(molecule), range(1, 87)) == [reason]
    assert check_geometries(batch(WATER, molecule, line(*range(15))), range(1, 87)) == [None, reason, None]


def test_a_few_molecules_at_a_time(monkeypatch):
    """Not all pairs of all molecules are held at once."""
    monkeypatch.setattr("atomrl.structures.molecules.PAIRS_AT_ONCE", 2 * 15**2)
    molecules = [WATER, line(0.0, 0.0), line(*range(15)), line(0.0, 6.5), WATER]
    assert check_geometries(batch(*molecules), range(1, 87)) == [None, "overlap", None, "exploded", None]


def test_batch_without_width():
    empty = Structures(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool))
    assert check_geometries(empty, {1}) == ["no_atoms", "no_atoms"]


def test_split_removes_padding():
    first, second = split(batch(WATER, line(0.0, 1.4)))
    assert first.numbers.tolist() == [8, 1, 1]
    assert second.numbers.tolist() == [6, 6]
    assert second.positions.dtype == np.float64
    np.testing.assert_allclose(second.positions, [[0, 0, 0], [1.4, 0, 0]], atol=1e-6)


def test_odd_electrons():
    assert odd_electrons(Geometry(np.array([8, 1]), np.zeros((2, 3))))
    assert not odd_electrons(Geometry(np.array([8, 1, 1]), np.zeros((3, 3))))


def test_failed_evaluation():
    failed = Evaluation.failed(3, "scf")
    assert np.isnan(failed.energy)
    assert failed.forces.shape == (3, 3)
    assert np.isnan(failed.forces).all()
    assert failed.reason == "scf"
