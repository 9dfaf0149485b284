"""Bond orders, stability and valence of molecules from interatomic distances, for a whole batch at once.

The distance table is that of EDM (Hoogeboom et al. 2022, arXiv 2203.17003): a pair of atoms has order k if it is
closer than the table's length for order k plus a margin (10, 5 and 3 pm for single, double and triple bonds). An
atom is stable if the orders of its bonds add up to a valence that its element allows.

B counts molecules, N atoms (padded), P pairs of atoms i < j that are close enough to have an entry below their
distance: about one pair in eight, and the only ones whose order is worked out. All lengths are Å; these distances are
taken in float64, so that a result does not depend on how a batch was cut or padded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from atomrl.util.errors import UserError

ORDERS = ("single", "double", "triple")
ELEMENTS = len(chemical_symbols)
PAIRS_AT_ONCE = 20_000_000
"""Pairs of atoms whose distances are held at one time: two arrays of 160 MB."""
SIGMOID_REACH = 40.0
"""Widths beyond a threshold where a soft order is taken as 0: sigmoid(-40) is 4e-18."""


@dataclass(frozen=True)
class BondTable:
    """The published distances and valences as tensors, so that a batch needs look-ups only.

    Attributes:
        rows: row of each atomic number in the tensors below, (119,) int64; row 0 is "no entry" (padding as well).
        thresholds: Å, margins included, (3, rows, rows) float64: an order holds below it; -inf without an entry.
        valences: allowed valences, (rows, K) float64, ascending; an element with fewer repeats its last, NaN without.
    """

    rows: Tensor
    thresholds: Tensor
    valences: Tensor


@dataclass(frozen=True)
class _Pairs:
    """Close pairs of atoms, each once.

    Attributes:
        first: one atom, as its place in the flattened (B * N) batch, (P,) int64.
        second: the other one, of the same molecule, (P,) int64.
        distances: Å, (P,) float64.
        thresholds: Å, one line for each order, (3, P) float64.
    """

    first: Tensor
    second: Tensor
    distances: Tensor
    thresholds: Tensor

    def totals(self, orders: Tensor, shape: torch.Size) -> Tensor:
        """Sum of the pairs' orders (P,) at each atom, (B, N) float64."""
        totals = torch.zeros(shape.numel(), dtype=torch.float64, device=orders.device)
        for atom in (self.first, self.second):
            totals.index_add_(0, atom, orders)
        return totals.view(shape)


@dataclass(frozen=True)
class Valence:
    """Stability and valence errors of B molecules.

    Attributes:
        stable_atoms: atoms with an allowed valence, (B, N) bool, False where padded.
        molecule_stable: all real atoms are stable (and there is one), (B,) bool.
        atom_stability: stable atoms / atoms, (B,) float64; 0 for an empty molecule.
        underbond: missing bond order, summed over atoms, (B,) float64.
        overbond: excess bond order, summed over atoms, (B,) float64.
    """

    stable_atoms: Tensor
    molecule_stable: Tensor
    atom_stability: Tensor
    underbond: Tensor
    overbond: Tensor


def bond_orders(numbers: Tensor, positions: Tensor) -> Tensor:
    """Order of the bond between each pair of atoms.

    Args:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Å, (B, N, 3); a pair with a coordinate that is not finite has no bond.

    Returns:
        (B, N, N) int64 in 0..3, symmetric; 0 on the diagonal, for padded atoms and for pairs without an entry.

    Raises:
        UserError: an atomic number outside 0..118.
    """
    pairs = _close_pairs(numbers, positions)
    found = _hard_orders(pairs)
    batch, atoms = numbers.shape
    orders = torch.zeros((batch * atoms, atoms), dtype=torch.int64, device=numbers.device)
    orders[pairs.first, pairs.second % atoms] = found
    orders[pairs.second, pairs.first % atoms] = found
    return orders.view(batch, atoms, atoms)


def valence(
    numbers: Tensor, positions: Tensor, mask: Tensor, under_weight: float = 1.0, over_weight: float = 1.0
) -> Valence:
    """Stability of atoms and molecules, and hard valence errors.

    Args:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Å, (B, N, 3).
        mask: real atoms, (B, N) bool.
        under_weight: cost of a missing order, and
        over_weight: cost of an excess one: they pick the nearest of several allowed valences (the lower one if both
            cost the same); the returned errors are not weighted.

    Raises:
        UserError: a real atom's element has no allowed valence in the table.
    """
    pairs = _close_pairs(numbers, positions)
    totals = pairs.totals(_hard_orders(pairs).double(), numbers.shape)
    under, over = _valence_errors(totals, numbers, mask, under_weight, over_weight)
    stable = mask & (under + over == 0)
    atoms = mask.sum(1)
    return Valence(
        stable_atoms=stable,
        molecule_stable=(stable.sum(1) == atoms) & (atoms > 0),
        atom_stability=stable.sum(1, dtype=torch.float64) / atoms.clamp(min=1),
        underbond=under.sum(1),
        overbond=over.sum(1),
    )


def soft_valence(
    numbers: Tensor,
    positions: Tensor,
    mask: Tensor,
    temperature: float = 0.02,
    *,
    under_weight: float = 1.0,
    over_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Valence errors of smooth bond orders: the sum over k of sigmoid((threshold_k - distance) / temperature).

    Args:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Å, (B, N, 3).
        mask: real atoms, (B, N) bool.
        temperature: Å, width of the sigmoid.
        under_weight: see `valence`.
        over_weight: see `valence`.

    Returns:
        Missing and excess bond order, summed over atoms, each (B,) float64, unweighted; NaN for a molecule with a
        coordinate that is not finite.

    Raises:
        UserError: a real atom's element has no allowed valence in the table.
    """
    pairs = _close_pairs(numbers, positions, SIGMOID_REACH * temperature)
    # An order without an entry has threshold -inf and adds exactly 0.
    orders = torch.sigmoid((pairs.thresholds - pairs.distances) / temperature).sum(0)
    under, over = _valence_errors(pairs.totals(orders, numbers.shape), numbers, mask, under_weight, over_weight)
    finite = (positions.isfinite().all(2) | ~mask).all(1)
    unknown = torch.where(finite, 0.0, torch.nan).to(under)
    return under.sum(1) + unknown, over.sum(1) + unknown


@lru_cache(maxsize=8)
def bond_table(device: torch.device) -> BondTable:
    """The published table on a device."""
    content = published_table()
    symbols = sorted(content["allowed_valence"], key=atomic_numbers.__getitem__)
    place = {symbol: row for row, symbol in enumerate(symbols, start=1)}
    rows = torch.zeros(ELEMENTS, dtype=torch.int64)
    for symbol, row in place.items():
        rows[atomic_numbers[symbol]] = row
    thresholds = torch.full((len(ORDERS), len(place) + 1, len(place) + 1), -torch.inf, dtype=torch.float64)
    for k, (order, margin) in enumerate(zip(ORDERS, content["margins"], strict=True)):
        for first, partners in content[order].items():
            for second, length in partners.items():
                thresholds[k, place[first], place[second]] = (length + margin) / 100
    allowed = {
        symbol: value if isinstance(value, list) else [value] for symbol, value in content["allowed_valence"].items()
    }
    most = max(len(values) for values in allowed.values())
    valences = torch.full((len(place) + 1, most), torch.nan, dtype=torch.float64)
    for symbol, values in allowed.items():
        padded = sorted(values) + [max(values)] * (most - len(values))
        valences[place[symbol]] = torch.tensor(padded, dtype=torch.float64)
    return BondTable(rows.to(device), thresholds.to(device), valences.to(device))


@lru_cache(maxsize=1)
def published_table() -> dict[str, Any]:
    """The table as published: lengths in pm by order and symbols, margins in pm, allowed valences."""
    text = resources.files("atomrl").joinpath("assets", "bond_table.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def table_hash() -> str:
    """SHA-256 of the published table, to name it by."""
    return hashlib.sha256(json.dumps(published_table(), sort_keys=True).encode()).hexdigest()


def known_elements() -> list[str]:
    """Symbols of the elements whose allowed valence the table has."""
    return sorted(published_table()["allowed_valence"], key=atomic_numbers.__getitem__)


def _hard_orders(pairs: _Pairs) -> Tensor:
    """Bond order of each pair, (P,) int64: how many of the thresholds, each below the one before, it is under."""
    return (pairs.distances < pairs.thresholds).sum(0)


def _close_pairs(numbers: Tensor, positions: Tensor, margin: float = 0.0) -> _Pairs:
    """The pairs that are no further apart than the longest threshold of the batch's elements plus a margin in Å."""
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < ELEMENTS:
        low, high = int(numbers.min()), int(numbers.max())
        raise UserError(f"atomic numbers run from {low} to {high}: give numbers in 0..{ELEMENTS - 1}, 0 for padding")
    table = bond_table(positions.device)
    rows = table.rows[numbers]
    present = torch.bincount(rows.flatten(), minlength=len(table.valences)) > 0
    longest = float(table.thresholds[0].masked_fill(~(present[:, None] & present), -torch.inf).max())
    # The allowance is for rounding: the positions may be float32.
    reach = max(longest, 0.0) * 1.001 + margin
    # Atoms first, molecules last: pairs are then rows to copy. Padded atoms stand at infinity: an infinite or NaN
    # distance is not close.
    placed = positions.masked_fill((numbers == 0)[..., None], torch.inf).permute(2, 1, 0).contiguous()
    i, j = torch.triu_indices(numbers.shape[1], numbers.shape[1], offset=1, device=positions.device)
    lots = placed.split(max(1, PAIRS_AT_ONCE // max(1, len(i))), dim=2)
    found = [_closer(lot, i, j, reach) for lot in lots]
    pair = torch.cat([pairs for pairs, _ in found])
    molecule = torch.cat([rows + number * lots[0].shape[2] for number, (_, rows) in enumerate(found)])
    first, second = (molecule * numbers.shape[1] + atom.index_select(0, pair) for atom in (i, j))
    exact, kinds = positions.double().reshape(-1, 3).T.contiguous(), rows.flatten()
    squares = (exact.index_select(1, first) - exact.index_select(1, second)).square_().sum(0)
    entries = kinds.index_select(0, first) * len(table.valences) + kinds.index_select(0, second)
    thresholds = table.thresholds.flatten(1).index_select(1, entries)
    return _Pairs(first, second, squares.sqrt_(), thresholds)


def _closer(placed: Tensor, i: Tensor, j: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Which of the pairs of atoms i, j of which molecules are closer than `reach`, in Å; placed (3, N, B)."""
    squares = placed.new_zeros(len(i), placed.shape[2])
    for axis in placed:  # one at a time: three at once no longer fit a cache, and cost five times as much
        difference = axis.index_select(0, i).sub_(axis.index_select(0, j))
        squares.addcmul_(difference, difference)
    pair, molecule = (squares < reach**2).nonzero(as_tuple=True)
    return pair, molecule


def _valence_errors(
    totals: Tensor, numbers: Tensor, mask: Tensor, under_weight: float, over_weight: float
) -> tuple[Tensor, Tensor]:
    """Missing and excess order of each atom, (B, N), against the allowed valence that costs least; 0 where padded."""
    table = bond_table(totals.device)
    allowed = table.valences.index_select(0, table.rows[numbers].flatten()).view(*numbers.shape, -1)
    unknown = mask & allowed[..., 0].isnan()
    if bool(unknown.any()):
        names = ", ".join(chemical_symbols[number] for number in sorted(set(numbers[unknown].tolist())))
        raise UserError(f"no allowed valence for element {names}: the table knows {', '.join(known_elements())}")
    gap = allowed - totals[..., None]
    under, over = gap.clamp(min=0), (-gap).clamp(min=0)
    # The small term decides between valences of equal weighted cost, e.g. where a weight is 0.
    cost = under_weight * under + over_weight * over + 1e-9 * (under + over)
    nearest = cost.argmin(2, keepdim=True)
    zero = totals.new_zeros(())
    return (
        torch.where(mask, under.gather(2, nearest).squeeze(2), zero),
        torch.where(mask, over.gather(2, nearest).squeeze(2), zero),
    )
