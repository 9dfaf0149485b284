"""The noise prediction of EDM: scaled molecule, time and context in, noise in the zero-centre-of-mass space out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from atomrl.diffusion.edm import polynomial_gamma, remove_mean
from atomrl.networks.checks import at_least, positive
from atomrl.networks.egnn import EGNN, EGNNConfig
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class EDMConfig:
    """Everything that fixes an EDM backbone's parameters; stored beside the weights.

    Attributes:
        elements: symbols in the order of the one-hot columns.
        include_charges: one more feature column with the atomic number.
        normalize_factors: divisors of positions, one-hot and charge columns.
        context_features: width of the conditioning vector, 0 if unconditional.
        diffusion_steps: steps of the noise schedule.
        noise_precision: `s` of the polynomial schedule.
        hidden, edge_hidden, layers, inv_sublayers, attention, tanh, norm_constant, sin_embedding, aggregation,
            normalization_factor: see `EGNNConfig`.
    """

    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    include_charges: bool = False
    normalize_factors: tuple[float, float, float] = (1.0, 4.0, 10.0)
    context_features: int = 0
    diffusion_steps: int = 1000
    noise_precision: float = 1e-5
    hidden: int = 64
    edge_hidden: int | None = None
    layers: int = 4
    inv_sublayers: int = 1
    attention: bool = True
    tanh: bool = True
    norm_constant: float = 1.0
    sin_embedding: bool = False
    aggregation: str = "sum"
    normalization_factor: float = 1.0

    @property
    def features(self) -> int:
        """Feature columns F of a latent (B, N, 3 + F)."""
        return len(self.elements) + int(self.include_charges)

    def egnn(self) -> EGNNConfig:
        """Shape of the network inside."""
        return EGNNConfig(
            in_features=self.features + 1 + self.context_features,
            hidden=self.hidden,
            edge_hidden=self.edge_hidden,
            layers=self.layers,
            inv_sublayers=self.inv_sublayers,
            attention=self.attention,
            tanh=self.tanh,
            norm_constant=self.norm_constant,
            sin_embedding=self.sin_embedding,
            aggregation=self.aggregation,
            normalization_factor=self.normalization_factor,
        )

    def atomic_numbers(self) -> tuple[int, ...]:
        """Of the elements, in their order.

        Raises:
            UserError: one is no element symbol.
        """
        if unknown := [symbol for symbol in self.elements if not atomic_numbers.get(symbol)]:
            raise UserError(f"the backbone's elements {unknown} are not element symbols")
        return tuple(atomic_numbers[symbol] for symbol in self.elements)

    def check(self) -> None:
        """Refuse what no network can be made of, or would not be the one that was asked for.

        Raises:
            UserError: an unknown element or none, a number out of range, or an unknown word.
        """
        elements, factors = list(self.elements), list(self.normalize_factors)
        if not elements or len(set(self.atomic_numbers())) < len(elements):
            raise UserError(f"elements={elements}: name one or more, each once")
        if len(factors) != 3:
            raise UserError(f"normalize_factors={factors}: give three positive numbers")
        for factor in factors:
            positive(normalize_factors=factor)
        at_least(0, context_features=self.context_features)
        at_least(1, diffusion_steps=self.diffusion_steps)
        if not 0 < self.noise_precision < 0.5:
            raise UserError(f"noise_precision={self.noise_precision}: must lie between 0 and 0.5")
        self.egnn().check()


class Dynamics(nn.Module):
    """Holds the EGNN under its published name, `dynamics.egnn`."""

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        self.egnn = EGNN(config)


class NoiseTable(nn.Module):
    """Holds the schedule's table under its published name, `gamma.gamma`."""

    gamma: Tensor

    def __init__(self, gamma: Tensor) -> None:
        super().__init__()
        self.register_buffer("gamma", gamma)


class EDMNetwork(nn.Module):
    """eps_theta(z_t, t, context) of EDM, with the published parameter names.

    Raises:
        UserError: see `EDMConfig.check`.
    """

    buffer: Tensor

    def __init__(self, config: EDMConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.dynamics = Dynamics(config.egnn())
        self.gamma = NoiseTable(polynomial_gamma(config.diffusion_steps, config.noise_precision))
        self.register_buffer("buffer", torch.zeros(1))  # empty, published

    def forward(self, latents: Tensor, time: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict the noise in a latent.

        Args:
            latents: z_t (B, N, 3 + F), positions first.
            time: t in [0, 1], (B,).
            mask: (B, N) in the dtype of the latents.
            context: (B, context_features), for conditional models.

        Returns:
            (B, N, 3 + F): position noise without its mean, feature noise; 0 for padded atoms.
        """
        positions, features = latents[..., :3], latents[..., 3:]
        batch, atoms = mask.shape
        inputs = [features, time[:, None, None].expand(batch, atoms, 1)]
        if self.config.context_features:
            if context is None:
                raise ValueError(f"this model is conditional: pass a context (B, {self.config.context_features})")
            inputs.append(context[:, None, :].expand(batch, atoms, self.config.context_features))
        out, moved = self.dynamics.egnn(torch.cat(inputs, dim=-1), positions, mask)
        shift = remove_mean((moved - positions) * mask[..., None], mask)
        noise = torch.cat([shift, out[..., : self.config.features].to(shift.dtype)], dim=-1)
        return noise * mask[..., None]
