"""Stability and valence as the published code has them: a Python loop over the pairs of each molecule.

What `atomrl.chemistry.bonds` is measured against. Same numbers, one molecule and one pair at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from atomrl.chemistry.bonds import published_table, valence
from atomrl.data.batches import MoleculeBatch


@dataclass(frozen=True)
class PlainValence:
    """One molecule: is it stable, its stable atoms, its missing and its excess bond order."""

    stable: bool
    stable_atoms: int
    underbond: int
    overbond: int


def bond_order(first: str, second: str, distance: float) -> int:
    """Order of one pair at a distance in Å."""
    table = published_table()
    lengths = [table[order].get(first, {}).get(second) for order in ("single", "double", "triple")]
    order = 0
    for length, margin in zip(lengths, table["margins"], strict=True):
        if length is None or not distance < (length + margin) / 100:
            break
        order += 1
    return order


def check_stability(numbers: NDArray[np.int64], positions: NDArray[np.float32]) -> PlainValence:
    """One molecule: atomic numbers (N,) and positions in Å (N, 3)."""
    allowed = published_table()["allowed_valence"]
    symbols = [chemical_symbols[number] for number in numbers]
    x, y, z = positions[:, 0], positions[:, 1], positions[:, 2]
    bonds = np.zeros(len(x), dtype=int)
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            p1 = np.array([x[i], y[i], z[i]], dtype=np.float64)
            p2 = np.array([x[j], y[j], z[j]], dtype=np.float64)
            distance = np.sqrt(np.sum((p1 - p2) ** 2))
            order = bond_order(symbols[i], symbols[j], distance)
            bonds[i] += order
            bonds[j] += order
    stable, under, over = 0, 0, 0
    for symbol, bond in zip(symbols, bonds, strict=True):
        possible = allowed[symbol] if isinstance(allowed[symbol], list) else [allowed[symbol]]
        nearest = min(possible, key=lambda value: abs(value - bond))
        stable += int(nearest == bond)
        under += max(nearest - bond, 0)
        over += max(bond - nearest, 0)
    return PlainValence(stable == len(symbols), stable, int(under), int(over))


def plain(batch: MoleculeBatch) -> list[PlainValence]:
    """Every molecule of a batch, one after the other."""
    molecules = zip(batch.numbers.numpy(), batch.positions.numpy(), batch.mask.numpy() > 0, strict=True)
    return [check_stability(numbers[mask], positions[mask]) for numbers, positions, mask in molecules]


def vectorised(batch: MoleculeBatch) -> list[PlainValence]:
    """The same by the package's batched code."""
    found = valence(batch.numbers, batch.positions, batch.mask.bool())
    columns = (found.molecule_stable, found.stable_atoms.sum(1), found.underbond.long(), found.overbond.long())
    return [PlainValence(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def compare(batch: MoleculeBatch, repeats: int = 5) -> dict[str, float]:
    """Seconds of both on one batch (the best of `repeats` for the fast one), their ratio, and whether they agree.

    Raises:
        ValueError: the two disagree.
    """
    start = time.perf_counter()
    expected = plain(batch)
    slow = time.perf_counter() - start
    fast = min(_timed(batch, expected) for _ in range(repeats))
    return {"molecules": len(expected), "plain_s": slow, "vectorised_s": fast, "ratio": slow / fast}


def _timed(batch: MoleculeBatch, expected: Sequence[PlainValence]) -> float:
    start = time.perf_counter()
    found = valence(batch.numbers, batch.positions, batch.mask.bool())
    seconds = time.perf_counter() - start
    if found.molecule_stable.tolist() != [one.stable for one in expected] or vectorised(batch) != expected:
        raise ValueError("the batched code and the plain loop disagree")
    return seconds
