"""Pictures of samples: what was sampled is seen, what cannot be drawn leaves its place empty."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT

from atomrl.core.records import Structures
from atomrl.export import crystal_picture, molecule_picture
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError


def panels(picture: np.ndarray, count: int) -> list[np.ndarray]:
    """The places of a picture, without their captions."""
    high, wide, across = 240, 260, 4
    assert picture.dtype == np.uint8
    assert picture.shape == (high * -(-count // across), wide * across, 3)
    places = [divmod(place, across) for place in range(count)]
    return [picture[y * high : y * high + 185, x * wide : (x + 1) * wide] for y, x in places]


def drawn(panel: np.ndarray) -> bool:
    return bool((panel < 250).any())


def test_molecules(qm9_test: Structures) -> None:
    samples = qm9_test[:6]
    positions = samples.positions.double()
    positions[1] = torch.nan
    positions[2] *= 1e3
    positions[3] += torch.randn(positions[3].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = samples.mask.clone()
    mask[4] = False
    samples = Structures(samples.numbers * mask, positions, mask)
    captions = [f"{row:05d}\nreward 0.1" for row in range(6)]
    picture = molecule_picture.draw(samples, captions)
    assert [drawn(panel) for panel in panels(picture, 6)] == [True, False, False, True, False, True]
    assert all(drawn(picture[240 * (row // 4) + 185 : 240 * (row // 4) + 240, 260 * (row % 4) :]) for row in range(6))


def test_a_molecule_is_drawn_as_it_was_sampled() -> None:
    """Without hydrogens that nobody sampled: two lone atoms are two letters, and the same from whatever side."""
    numbers, mask = torch.tensor([[6, 8]] * 2), torch.ones(2, 2, dtype=torch.bool)
    positions = torch.zeros(2, 2, 3, dtype=torch.float64)
    positions[0, 1, 0] = positions[1, 1, 2] = 5.0
    one, other = panels(molecule_picture.draw(Structures(numbers, positions, mask), ["", ""]), 2)
    red = (one[..., 0] > 200) & (one[..., 1] < 60)
    assert red.any()  # oxygen
    assert (one == other).mean() > 0.98


def test_crystals() -> None:
    samples = from_pymatgen([ROCK_SALT, CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, PEROVSKITE])
    positions, cell, numbers = samples.positions.clone(), samples.cell.clone(), samples.numbers.clone()
    positions[1] = torch.nan
    cell[2] *= 1e3
    numbers[3, 0] = 150
    samples = replace(samples, positions=positions, cell=cell, numbers=numbers)
    picture = crystal_picture.draw(samples, ["00000\nreward 0.1"] * 5)
    assert [drawn(panel) for panel in panels(picture, 5)] == [True, False, False, False, True]
    red = (picture[240:, :260, 0] > 200) & (picture[240:, :260, 1] < 60)
    assert red.any()  # oxygen of the perovskite


def test_crystals_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(UserError, match=r"needs the package matplotlib.*'atomrl\[crystals\]'"):
        crystal_picture.draw(from_pymatgen([ROCK_SALT]), [""])
