"""What the published bond table does not know: pairs of elements without a length, elements without a valence.

A pair without an entry never has a bond, however near its atoms are: BF3 is a boron and three fluorines to the table.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import combinations_with_replacement

import torch
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from torch import Tensor

from atomrl.chemistry.bonds import ORDERS, known_elements, published_table
from atomrl.util.errors import UserError

NEAR = 1.2
"""Times the sum of the covalent radii (Cordero et al. 2008, as in ASE): atoms that are closer are near each other."""

LOT = 256
"""Molecules whose distances are taken at a time."""


def missing_pairs(symbols: Collection[str]) -> list[tuple[str, str]]:
    """The pairs of these elements that have no bond length of any order, each once, by atomic number."""
    table = published_table()
    ordered = sorted(set(symbols), key=atomic_numbers.__getitem__)
    return [
        (first, second)
        for first, second in combinations_with_replacement(ordered, 2)
        if not any(second in table[order].get(first, {}) for order in ORDERS)
    ]


def no_bond_entry(numbers: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """How many pairs of atoms are near each other and have no entry in the table, (B,) int64.

    Args:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Å, (B, N, 3); an atom whose coordinates are not finite is near none.
        mask: real atoms, (B, N) bool.
    """
    lacking = _reaches(numbers.device)
    counts = [
        _near_pairs((numbers * mask)[start : start + LOT], positions[start : start + LOT], lacking)
        for start in range(0, len(numbers), LOT)
    ]
    return torch.cat(counts) if counts else numbers.new_zeros(0)


def have_valences(numbers: Tensor, mask: Tensor) -> Tensor:
    """Whether the table has a valence for every element of a molecule, (B,) bool."""
    known = torch.tensor([0, *(atomic_numbers[symbol] for symbol in known_elements())], device=numbers.device)
    return torch.isin(numbers * mask, known).all(1)


def require_valences(numbers: Tensor, mask: Tensor) -> None:
    """Refuse molecules that the table cannot judge, before anything about them is computed.

    Raises:
        UserError: it has no valence for one of their elements.
    """
    present, known = numbers[mask].unique().tolist(), known_elements()
    symbols = [chemical_symbols[number] for number in present if 0 < number < len(chemical_symbols)]
    if unknown := [symbol for symbol in symbols if symbol not in known]:
        raise UserError(
            f"the bond table has no valence for {', '.join(unknown)}, which some molecules contain: leave these out, "
            "or set evaluation.profile=rdkit-xyz2mol, with which RDKit finds the bonds"
        )


@lru_cache(maxsize=8)
def _reaches(device: torch.device) -> Tensor:
    """Å below which two elements without an entry are near each other, (119, 119); 0 for pairs with one."""
    radii = torch.from_numpy(covalent_radii.copy()).double()
    reaches = NEAR * (radii[:, None] + radii)
    for first, second in _pairs_with_entry():
        reaches[first, second] = reaches[second, first] = 0.0
    reaches[0, :] = reaches[:, 0] = 0.0
    return reaches.to(device)


def _pairs_with_entry() -> list[tuple[int, int]]:
    """Atomic numbers of the pairs that have a length of some order."""
    table = published_table()
    return [
        (atomic_numbers[first], atomic_numbers[second])
        for order in ORDERS
        for first, partners in table[order].items()
        for second in partners
    ]


def _near_pairs(numbers: Tensor, positions: Tensor, reaches: Tensor) -> Tensor:
    """Pairs of each molecule that are closer than their reach, (B,)."""
    finite = positions.isfinite().all(2)
    placed = torch.where(finite[..., None], positions.double(), 0.0)
    reach = reaches[numbers[:, :, None], numbers[:, None, :]].triu(1) * (finite[:, :, None] & finite[:, None, :])
    return (torch.cdist(placed, placed) < reach).sum((1, 2))
