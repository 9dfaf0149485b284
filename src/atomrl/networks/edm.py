"""The noise prediction of EDM: scaled molecule, time and context in, noise in the zero-centre-of-mass space out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import torch
from ase.data import atomic_numbers
from pydantic import Field, model_validator
from torch import Tensor, nn

from atomrl.diffusion.edm import polynomial_gamma, remove_mean
from atomrl.networks.egnn import EGNN, EGNNConfig, EGNNShape
from atomrl.util.options import Count, CountOrNone, Number, PositiveFinite, contradiction


class EDMConfig(EGNNShape):
    """Everything that fixes an EDM backbone's parameters; stored beside the weights."""

    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    """Symbols in the order of the one-hot columns."""
    include_charges: bool = False
    """Whether there is one more feature column, the atomic number."""
    normalize_factors: tuple[PositiveFinite, PositiveFinite, PositiveFinite] = (1.0, 4.0, 10.0)
    """Divisors of positions (Å), one-hot and atomic number."""
    context_features: CountOrNone = 0
    """Width of the context, 0 if unconditional; `atomrl pretrain edm` takes it from `context`, so leave it out
    there."""
    diffusion_steps: Count = 1000
    """Steps of the noise schedule."""
    noise_precision: Annotated[Number, Field(gt=0.0, lt=0.5)] = 1e-5
    """Precision s of the polynomial noise schedule (`polynomial_2`)."""
    unnamed_elements: ClassVar[bool] = False
    """Whether the elements may be left to the data."""

    @model_validator(mode="after")
    def _check_elements(self) -> Self:
        """Raise UserError for unknown elements, none at all, and one that is named twice."""
        elements = list(self.elements)
        if unknown := [symbol for symbol in elements if not atomic_numbers.get(symbol)]:
            raise contradiction(f"{{at}}elements={elements}: the backbone's elements {unknown} are not element symbols")
        if (not elements and not self.unnamed_elements) or len(set(elements)) < len(elements):
            raise contradiction(f"{{at}}elements={elements}: name one or more, each once")
        return self

    @property
    def features(self) -> int:
        """Feature columns F of a latent (B, N, 3 + F)."""
        return len(self.elements) + int(self.include_charges)

    def egnn(self) -> EGNNConfig:
        """Shape of the network inside."""
        shape = {name: getattr(self, name) for name in EGNNShape.model_fields}
        return EGNNConfig(in_features=self.features + 1 + self.context_features, **shape)

    def atomic_numbers(self) -> tuple[int, ...]:
        """Of the elements, in their order."""
        return tuple(atomic_numbers[symbol] for symbol in self.elements)


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
    """eps_theta(z_t, t, context) of EDM, with the published parameter names."""

    buffer: Tensor

    def __init__(self, config: EDMConfig) -> None:
        super().__init__()
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
