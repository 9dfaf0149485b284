"""The crystal VAE: atoms, fractional coordinates and cell in, one small latent vector per atom out, and back.

Parameters carry their published names. B crystals, N atoms (padded), d features, D latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from atomrl.core.records import Structures
from atomrl.networks.transformer import Transformer, index_embedding, require_shared
from atomrl.structures.tensors import CrystalTensors, cell_from_parameters, cell_parameters
from atomrl.util.options import Count, Number, Options, Whole

PAIRS_AT_ONCE = 256 * 20**2
"""Pairs of atoms that the encoder should see at once, since it holds their attention: 256 crystals of 20 atoms."""

LOG_VARIANCE_RANGE = (-30.0, 20.0)

Factor = Annotated[Number, Field(ge=0.0)]


class CrystalVAEConfig(Options):
    """Everything that fixes a crystal VAE's parameters; the defaults are the published size."""

    width: Count = 512
    """Features of an atom, d; even, and a multiple of `heads`."""
    heads: Count = 8
    """Heads of the attention."""
    feedforward: Count = 2048
    """Hidden width of the perceptron in a layer."""
    layers: Count = 8
    """Layers of the encoder, and of the decoder."""
    latent: Count = 8
    """Channels of an atom's latent, D."""
    elements: Annotated[Whole, Field(ge=2)] = 100
    """Rows of the table of elements; the row is the atomic number Z, so that each Z must be below this."""

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        """Raise UserError for a width that the heads cannot share."""
        require_shared("width", self.width, self.heads)
        return self


@dataclass(frozen=True)
class Posterior:
    """q(z | crystal): a Gaussian per atom and channel.

    Attributes:
        mean: (B, N, D); the latent at inference. 0 where padded.
        log_variance: (B, N, D), clamped. 0 where padded.
        features: the encoder's output, (B, N, d), 0 where padded.
    """

    mean: Tensor
    log_variance: Tensor
    features: Tensor

    def sample(self, normals: Tensor) -> Tensor:
        """A latent of the posterior, mean + std * normals, (B, N, D)."""
        return self.mean + torch.exp(self.log_variance / 2) * normals

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) of each atom, summed over its channels, in nats, (B, N); 0 where padded."""
        return (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).sum(-1) / 2


@dataclass(frozen=True)
class Decoded:
    """The decoder's heads.

    Attributes:
        type_logits: (B, N, elements), column = Z.
        lengths: of the lattice vectors over N^(1/3), Å, (B, 3).
        angles: alpha, beta, gamma in radians, (B, 3).
        frac_coords: (B, N, 3).
    """

    type_logits: Tensor
    lengths: Tensor
    angles: Tensor
    frac_coords: Tensor


class LossWeights(Options):
    """Factors of the terms in `vae_loss`."""

    types: Factor = 1.0
    """Weight in the loss of the cross-entropy of the elements."""
    lengths: Factor = 1.0
    """Weight in the loss of the squared error of the cell's lengths."""
    angles: Factor = 10.0
    """Weight in the loss of the squared error of the cell's angles."""
    frac_coords: Factor = 10.0
    """Weight in the loss of the squared error of the fractional coordinates."""
    kl: Factor = 1e-5
    """Weight in the loss of the KL to a standard normal."""


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    """Linear without bias, SiLU, Linear."""
    return nn.Sequential(nn.Linear(inputs, width, bias=False), nn.SiLU(), nn.Linear(width, width))


class Encoder(nn.Module):
    """Crystal -> features of its atoms."""

    def __init__(self, config: CrystalVAEConfig) -> None:
        super().__init__()
        self.width = config.width
        self.atom_type_embedder = nn.Embedding(config.elements, config.width)
        self.lattices_embedder = _perceptron(9, config.width)
        self.frac_coords_embedder = _perceptron(3, config.width)
        self.transformer = Transformer(config.width, config.heads, config.feedforward, config.layers)

    def forward(self, batch: CrystalTensors) -> Tensor:
        """Features (B, N, d); padded rows hold no meaning."""
        features = (
            self.atom_type_embedder(batch.numbers)
            + self.lattices_embedder(batch.cell.flatten(1))[:, None]
            + self.frac_coords_embedder(batch.frac_coords)
        )
        features = features + index_embedding(batch.mask, self.width, features.dtype)
        out: Tensor = self.transformer(features, batch.mask)
        return out


class Decoder(nn.Module):
    """Features of latents -> heads."""

    def __init__(self, config: CrystalVAEConfig) -> None:
        super().__init__()
        self.width = config.width
        self.transformer = Transformer(config.width, config.heads, config.feedforward, config.layers)
        self.atom_types_head = nn.Linear(config.width, config.elements)
        self.frac_coords_head = nn.Linear(config.width, 3, bias=False)
        self.lattice_head = nn.Linear(config.width, 6, bias=False)

    def forward(self, features: Tensor, mask: Tensor) -> Decoded:
        """Heads from features (B, N, d); the lattice from their mean over the real atoms."""
        features = self.transformer(features + index_embedding(mask, self.width, features.dtype), mask)
        weights = mask.to(features.dtype)[..., None]
        pooled = torch.where(weights > 0, features, 0).sum(1) / weights.sum(1)
        lengths, angles = self.lattice_head(pooled).chunk(2, dim=-1)
        return Decoded(self.atom_types_head(features), lengths, angles, self.frac_coords_head(features))


class CrystalVAE(nn.Module):
    """Encoder and decoder between crystals and latents (B, N, D)."""

    def __init__(self, config: CrystalVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Linear(config.width, 2 * config.latent, bias=False)
        self.post_quant_conv = nn.Linear(config.latent, config.width, bias=False)
        self.decoder = Decoder(config)

    def encode(self, batch: CrystalTensors) -> Posterior:
        """The posterior over latents; `mean` is the latent at inference."""
        real = (batch.mask > 0)[..., None]
        features = torch.where(real, self.encoder(batch), 0)
        mean, log_variance = self.quant_conv(features).chunk(2, dim=-1)
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCE_RANGE), features)

    def decode(self, latents: Tensor, mask: Tensor) -> Decoded:
        """The heads for latents (B, N, D) and mask (B, N)."""
        heads: Decoded = self.decoder(self.post_quant_conv(latents), mask)
        return heads

    def reconstruct(self, latents: Tensor, mask: Tensor) -> Structures:
        """The crystals that latents (B, N, D) stand for."""
        return structures_of(self.decode(latents, mask), mask)


def readable(vae: CrystalVAE, structures: Structures) -> tuple[CrystalTensors, Tensor]:
    """Crystals as a VAE takes them, on its device and in its precision, and which of them it knows all elements of.

    Args:
        vae: that will encode them.
        structures: B crystals; their cells are inverted in their own precision.

    Returns:
        The batch, with elements 0 where one is unknown, and (B,) bool.

    Raises:
        ValueError: the structures are molecules.
    """
    weight = vae.encoder.atom_type_embedder.weight
    batch = CrystalTensors.of(structures).to(weight.device)
    mask = batch.mask > 0
    known = ((batch.numbers >= 0) & (batch.numbers < vae.config.elements) | ~mask).all(1)
    numbers = torch.where(known[:, None] & mask, batch.numbers, 0)
    return CrystalTensors(numbers, batch.frac_coords.to(weight.dtype), batch.cell.to(weight.dtype), mask), known


def structures_of(decoded: Decoded, mask: Tensor) -> Structures:
    """Crystals out of the decoder's heads.

    Elements by argmax, where 0, which is no element, becomes 1; lengths times N^(1/3); coordinates not wrapped. What
    the decoder says is kept as it is: a cell may be degenerate, or NaN where its angles are.

    Args:
        decoded: the heads.
        mask: (B, N).
    """
    real = mask > 0
    numbers = decoded.type_logits.argmax(-1).clamp(min=1)
    scale = real.sum(1, keepdim=True).to(decoded.lengths.dtype) ** (1 / 3)
    cell = cell_from_parameters(decoded.lengths * scale, decoded.angles)
    positions = torch.where(real[..., None], decoded.frac_coords @ cell, 0)
    return Structures(torch.where(real, numbers, 0), positions, real, cell)


def vae_loss(
    vae: CrystalVAE, batch: CrystalTensors, normals: Tensor, weights: LossWeights | None = None
) -> dict[str, Tensor]:
    """Training loss of a batch, with all its terms by name.

    Args:
        vae: the model.
        batch: crystals, all of at least one atom.
        normals: standard normals that pick z from the posterior, (B, N, D).
        weights: of the terms; None for the published ones.

    Returns:
        Scalars: `types` (cross-entropy, mean over atoms), `lengths` (mse, Å^2 after division by N^(1/3)), `angles`
        (mse, rad^2), `frac_coords` (mse), `kl` (nats per atom), and `loss`, their weighted sum.
    """
    weights = LossWeights() if weights is None else weights
    real = batch.mask > 0
    posterior = vae.encode(batch)
    decoded = vae.decode(posterior.sample(normals), batch.mask)
    lengths, angles = cell_parameters(batch.cell)
    scale = real.sum(1, keepdim=True).to(lengths.dtype) ** (1 / 3)
    terms = {
        "types": functional.cross_entropy(decoded.type_logits[real], batch.numbers[real]),
        "lengths": functional.mse_loss(decoded.lengths, lengths / scale),
        "angles": functional.mse_loss(decoded.angles, angles),
        "frac_coords": functional.mse_loss(decoded.frac_coords[real], batch.frac_coords[real]),
        "kl": posterior.kl()[real].mean(),
    }
    loss = (
        weights.types * terms["types"]
        + weights.lengths * terms["lengths"]
        + weights.angles * terms["angles"]
        + weights.frac_coords * terms["frac_coords"]
        + weights.kl * terms["kl"]
    )
    return {**terms, "loss": loss}
