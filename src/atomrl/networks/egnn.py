"""E(n)-equivariant graph network that predicts the noise of a molecule (the backbone of EDM).

Dense and batched: molecules of about one size form one batch, pairs are a (B, N, N, C) tensor, and the first
layer of every pair network is split, so that nodes are projected once and meet by broadcasting:

    W [h_i, h_j, e_ij] = W_i h_i + W_j h_j + W_e e_ij

Modules carry the published names (`e_block_0.gcl_0.edge_mlp.0.weight`, ...), so published weights load
without renaming. Source: Satorras et al. 2021 (EGNN), Hoogeboom et al. 2022 (EDM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AllowInfNan, Field
from torch import Tensor, nn
from torch.nn import functional

from atomrl.networks.pair_network import PairInputs, message_sum, pair_scalar
from atomrl.util.option_words import Unit
from atomrl.util.options import Count, Number, Options, PositiveFinite

SIN_FREQUENCIES = 6
"""Wave numbers of the sinusoidal distance embedding: 2 pi 4^k / 15 per Å for k = 0..5."""


class EGNNShape(Options):
    """What fixes an EGNN, beside its features."""

    hidden: Count = 64
    """Features of a node (published `nf`)."""
    edge_hidden: Count | None = None
    """Features of a pair; null: as many as of a node, the published form."""
    layers: Count = 4
    """Blocks of the network, each equivariant."""
    inv_sublayers: Count = 1
    """Message layers in a block."""
    attention: bool = True
    """Whether messages are weighted by attention, a learned sigmoid."""
    tanh: bool = True
    """Whether a pair's update of positions is bounded."""
    norm_constant: Annotated[Number, AllowInfNan(False), Field(ge=0.0), Unit("Å")] = 1.0
    """Constant, in Å, that is added to the distance that normalises a difference vector."""
    sin_embedding: bool = False
    """Whether distances enter as sines and cosines instead of squares."""
    aggregation: Literal["sum", "mean"] = "sum"
    """How messages are aggregated: `sum` (divided by `normalization_factor`) or `mean` over the real neighbours."""
    normalization_factor: PositiveFinite = 1.0
    """Divisor of the sum of messages, with `aggregation=sum`."""


class EGNNConfig(EGNNShape):
    """Shape of an EGNN."""

    in_features: Count
    """Node features that come in and go out (atom features + time + context)."""
    coords_range: PositiveFinite = 15.0
    """Å, bound of one block's coordinate update per pair, with `tanh`."""

    @property
    def edge_width(self) -> int:
        """Pair features inside the network."""
        return self.hidden if self.edge_hidden is None else self.edge_hidden

    @property
    def edge_features(self) -> int:
        """Geometric features of a pair: its distance at the block's start and at the input, each embedded."""
        return 2 * (2 * SIN_FREQUENCIES if self.sin_embedding else 1)


@dataclass(frozen=True)
class Pairs:
    """Which pairs of a batch exist, and how sums over them are scaled.

    Attributes:
        mask: (B, N, N), 1 where i != j and both atoms are real, else 0.
        scale: (B, N, 1) or (1, 1, 1), factor on every sum over neighbours.
    """

    mask: Tensor
    scale: Tensor


def pair_mask(mask: Tensor) -> Tensor:
    """Mask of the pairs of different real atoms: (B, N) -> (B, N, N), in the dtype of `mask`."""
    different = 1 - torch.eye(mask.shape[1], dtype=mask.dtype, device=mask.device)
    return mask[:, :, None] * mask[:, None, :] * different


def embed_distance(squared: Tensor, sinusoidal: bool) -> Tensor:
    """Features of squared distances (B, N, N) in Å^2 -> (B, N, N, 1), or (B, N, N, 12) if sinusoidal."""
    if not sinusoidal:
        return squared[..., None]
    wave_numbers = 2 * math.pi / 15 * 4 ** torch.arange(SIN_FREQUENCIES, dtype=squared.dtype, device=squared.device)
    phase = torch.sqrt(squared + 1e-8)[..., None] * wave_numbers
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def pair_inputs(layers: nn.Sequential, nodes: Tensor, edges: Tensor) -> PairInputs:
    """A pair network's inputs, nodes projected, in the dtype of autocast where that is on.

    Args:
        layers: starts with Linear(2H + E -> C), SiLU, Linear(C -> C), SiLU; what follows is not used here.
        nodes: (B, N, H).
        edges: (B, N, N, E).
    """
    first, second = layers[0], layers[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    width = nodes.shape[-1]
    receiver, sender, geometry = first.weight.split([width, width, edges.shape[-1]], dim=1)
    received, sent = functional.linear(nodes, receiver, first.bias), functional.linear(nodes, sender)
    dtype = received.dtype
    return PairInputs(
        received,
        sent,
        edges.to(dtype),
        geometry.t().contiguous().to(dtype),
        second.weight.to(dtype),
        second.bias.to(dtype),
    )


def _pair_layers(config: EGNNConfig) -> list[nn.Module]:
    """The two linears with SiLU that every pair network starts with."""
    width = config.edge_width
    return [
        nn.Linear(2 * config.hidden + config.edge_features, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
    ]


class MessageLayer(nn.Module):
    """Invariant message passing: messages of all pairs, summed with attention, update the node features."""

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        self.edge_mlp = nn.Sequential(*_pair_layers(config))
        self.node_mlp = nn.Sequential(
            nn.Linear(config.hidden + config.edge_width, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
        )
        self.att_mlp = nn.Sequential(nn.Linear(config.edge_width, 1), nn.Sigmoid()) if config.attention else None

    def forward(self, nodes: Tensor, edges: Tensor, pairs: Pairs) -> Tensor:
        """Node features (B, N, H) and pair features (B, N, N, E) -> new node features (B, N, H)."""
        inputs = pair_inputs(self.edge_mlp, nodes, edges)
        dtype = inputs.received.dtype
        gate, bias = None, None
        if self.att_mlp is not None:
            linear = self.att_mlp[0]
            assert isinstance(linear, nn.Linear)
            gate, bias = linear.weight[0].to(dtype), linear.bias.to(dtype)
        with torch.autocast(nodes.device.type, enabled=False):
            gathered = message_sum(inputs, pairs.mask.to(dtype), gate, bias) * pairs.scale
        update: Tensor = self.node_mlp(torch.cat([nodes, gathered], dim=-1))
        return nodes + update


class CoordinateLayer(nn.Module):
    """Equivariant update: each atom moves along the directions to its neighbours."""

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        last = nn.Linear(config.edge_width, 1, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=0.001)
        self.coord_mlp = nn.Sequential(*_pair_layers(config), last)
        self.config = config

    def forward(self, nodes: Tensor, positions: Tensor, edges: Tensor, pairs: Pairs, apart: Differences) -> Tensor:
        """Node features (B, N, H), positions (B, N, 3) in Å, pair features -> new positions (B, N, 3)."""
        inputs = pair_inputs(self.coord_mlp, nodes, edges)
        last = self.coord_mlp[4]
        assert isinstance(last, nn.Linear)
        with torch.autocast(nodes.device.type, enabled=False):
            push = pair_scalar(inputs, last.weight[0].to(inputs.received.dtype)).to(positions.dtype)
        if self.config.tanh:
            push = torch.tanh(push) * self.config.coords_range
        push = push * pairs.mask / (torch.sqrt(apart.squared + 1e-8) + self.config.norm_constant)
        # Not a matrix product: under autocast that would round the positions.
        return positions + (push[:, None] * apart.vectors).sum(3).transpose(1, 2) * pairs.scale


@dataclass(frozen=True)
class Differences:
    """Differences of positions, x, y and z in planes of their own, so that elementwise work has long rows.

    Attributes:
        vectors: x_i - x_j, (B, 3, N, N), Å.
        squared: their squared length, (B, N, N), Å^2.
    """

    vectors: Tensor
    squared: Tensor


def differences(positions: Tensor) -> Differences:
    """Differences of positions (B, N, 3)."""
    planes = positions.transpose(1, 2).contiguous()
    vectors = planes[:, :, :, None] - planes[:, :, None, :]
    return Differences(vectors, vectors.square().sum(1))


class EquivariantBlock(nn.Module):
    """Message layers and one coordinate layer that share the distances at the block's start."""

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        self.config = config
        for k in range(config.inv_sublayers):
            self.add_module(f"gcl_{k}", MessageLayer(config))
        self.gcl_equiv = CoordinateLayer(config)

    def forward(self, nodes: Tensor, positions: Tensor, initial: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Update node features (B, N, H) and positions (B, N, 3).

        `initial`: embedded distances at the network's input, (B, N, N, E/2).
        """
        apart = differences(positions)
        edges = torch.cat([embed_distance(apart.squared, self.config.sin_embedding), initial], dim=-1)
        for k in range(self.config.inv_sublayers):
            nodes = self.get_submodule(f"gcl_{k}")(nodes, edges, pairs)
        return nodes, self.gcl_equiv(nodes, positions, edges, pairs, apart)


class EGNN(nn.Module):
    """Fully connected EGNN over the real atoms of each molecule, without self edges."""

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Linear(config.in_features, config.hidden)
        self.embedding_out = nn.Linear(config.hidden, config.in_features)
        for k in range(config.layers):
            self.add_module(f"e_block_{k}", EquivariantBlock(config))

    def forward(self, features: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            features: (B, N, in_features).
            positions: (B, N, 3), Å.
            mask: (B, N), 1 for real atoms, in the dtype of the positions.

        Returns:
            Features (B, N, in_features) and positions (B, N, 3); rows of padded atoms are 0 and unmoved.
        """
        pairs = self._pairs(mask)
        initial = embed_distance(differences(positions).squared, self.config.sin_embedding)
        with torch.autocast(features.device.type, enabled=False):  # a bfloat16 time cannot tell 1000 steps apart
            nodes = self.embedding(features) * mask[..., None]
        for k in range(self.config.layers):
            nodes, positions = self.get_submodule(f"e_block_{k}")(nodes, positions, initial, pairs)
        with torch.autocast(features.device.type, enabled=False):
            return self.embedding_out(nodes) * mask[..., None], positions

    def _pairs(self, mask: Tensor) -> Pairs:
        """Pairs of a batch with (B, N) node mask, with the scale that the aggregation asks for."""
        existing = pair_mask(mask)
        if self.config.aggregation == "mean":
            return Pairs(existing, 1 / existing.sum(-1, keepdim=True).clamp(min=1))
        return Pairs(existing, torch.full_like(mask[:1, :1, None], 1 / self.config.normalization_factor))
