"""A property of molecules out of their geometry: message layers of EGNN, pooled over the atoms.

    property = constant + sum over atoms of what its element adds + scale * pooled network

The first two terms are fitted to the training set by least squares, so that the network learns what composition does
not say. Positions enter by distances alone and are not moved (Satorras et al. 2021, as for QM9's properties).
"""

from __future__ import annotations

from typing import Literal

import torch
from ase.data import atomic_numbers
from pydantic import field_validator
from torch import Tensor, nn

from atomrl.core.records import Structures
from atomrl.networks.egnn import EGNNConfig, MessageLayer, Pairs, differences, embed_distance, pair_mask
from atomrl.structures.padding import lots
from atomrl.util.options import Count, Options, contradiction

PAIRS_AT_ONCE = 256 * 30**2
"""Pairs of atoms that the network sees at once in `predict`: 256 molecules of 30 atoms."""


class RegressorConfig(Options):
    """Everything that fixes a regressor's parameters."""

    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    """Symbols of the elements that the network knows."""
    hidden: Count = 64
    """Features of an atom."""
    edge_hidden: Count = 64
    """Features of a pair."""
    layers: Count = 4
    """Message layers of the network."""
    sin_embedding: bool = False
    """Whether distances enter as sines and cosines instead of squares."""
    pooling: Literal["sum", "mean"] = "sum"
    """How atoms are pooled: `sum` for properties that grow with the molecule, `mean` for others."""

    @field_validator("elements")
    @classmethod
    def _check_elements(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        """Raise UserError for what is no element."""
        if not elements or any(not atomic_numbers.get(symbol) for symbol in elements):
            raise contradiction(f"{{at}}elements={list(elements)}: must be one or more symbols of elements")
        return elements

    def layer(self) -> EGNNConfig:
        """Shape of a message layer."""
        return EGNNConfig(
            in_features=len(self.elements),
            hidden=self.hidden,
            edge_hidden=self.edge_hidden,
            sin_embedding=self.sin_embedding,
        )


class MoleculeRegressor(nn.Module):
    """Molecules -> one property.

    Args:
        config: shape.
        target: name of the property.

    Attributes:
        reference: what each element adds, and the constant, in the property's unit, (E + 1,).
        scale: standard deviation of the training set's values around that, in the property's unit, ().
    """

    reference: Tensor
    scale: Tensor
    numbers: Tensor

    def __init__(self, config: RegressorConfig, target: str) -> None:
        super().__init__()
        self.config, self.target = config, target
        shape = config.layer()
        self.embedding = nn.Linear(len(config.elements), config.hidden)
        self.layers = nn.ModuleList(MessageLayer(shape) for _ in range(config.layers))
        self.per_atom = nn.Sequential(nn.Linear(config.hidden, config.hidden), nn.SiLU())
        self.last = nn.Linear(config.hidden, 1)
        self.register_buffer("reference", torch.zeros(len(config.elements) + 1))
        self.register_buffer("scale", torch.ones(()))
        numbers = torch.tensor([atomic_numbers[symbol] for symbol in config.elements])
        self.register_buffer("numbers", numbers, persistent=False)

    @property
    def targets(self) -> tuple[str, ...]:
        """The property's name."""
        return (self.target,)

    def forward(self, numbers: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """The property in its unit, (B,).

        Args:
            numbers: atomic numbers, (B, N) int64.
            positions: Å, (B, N, 3).
            mask: real atoms, (B, N), in the dtype of the positions.
        """
        one_hot = (numbers[..., None] == self.numbers).to(positions.dtype) * mask[..., None]
        distances = embed_distance(differences(positions).squared, self.config.sin_embedding)
        edges = torch.cat([distances, distances], dim=-1)  # at the start of a block and at the input: nothing moves
        pairs = Pairs(pair_mask(mask), torch.ones_like(mask[:1, :1, None]))
        nodes: Tensor = self.embedding(one_hot) * mask[..., None]
        for layer in self.layers:
            nodes = layer(nodes, edges, pairs)
        pooled = self.last(self.per_atom(nodes) * mask[..., None]).squeeze(-1) * mask
        total = pooled.sum(1) if self.config.pooling == "sum" else pooled.sum(1) / mask.sum(1).clamp(min=1)
        value: Tensor = self.linear(numbers) + self.scale * total
        return value

    def linear(self, numbers: Tensor) -> Tensor:
        """The linear part alone, of atomic numbers (B, N), 0 where padded; (B,)."""
        counts = (numbers[..., None] == self.numbers).sum(1).to(self.reference.dtype)
        value: Tensor = counts @ self.reference[:-1] + self.reference[-1]
        return value

    def fit_reference(self, numbers: Tensor, values: Tensor) -> None:
        """Fit the linear part to a training set, and its spread; least squares in float64.

        Args:
            numbers: atomic numbers, (B, N) int64, 0 where padded.
            values: of the property, (B,).
        """
        counts = (numbers[..., None] == self.numbers).sum(1).double()
        rows = torch.cat([counts, torch.ones(len(counts), 1, dtype=torch.float64)], dim=1)
        # gelsd: a set without one of the elements has no unique solution
        found = torch.linalg.lstsq(rows, values.double()[:, None], driver="gelsd").solution
        self.reference.copy_(found[:, 0])
        self.scale.copy_((values.double() - (rows @ found)[:, 0]).std().clamp(min=1e-6))

    @torch.no_grad()
    def predict(self, structures: Structures) -> dict[str, Tensor]:
        """The property of B molecules, {name: (B,)}, on the regressor's device.

        NaN for a molecule with an element that it does not know, or a coordinate that is not finite.
        """
        values = self.reference.new_empty(len(structures))
        for places, part in lots(structures, PAIRS_AT_ONCE):
            some = part.to(self.reference.device)
            known = ((some.numbers[..., None] == self.numbers).any(-1) | ~some.mask).all(1)
            sound = known & some.finite
            positions = torch.where(some.mask[..., None] & sound[:, None, None], some.positions, 0.0)
            found = self(some.numbers, positions.to(self.reference.dtype), some.mask.to(self.reference.dtype))
            values[places] = torch.where(sound & found.isfinite(), found, torch.nan)
        return {self.target: values}
