"""A property predictor: what a frozen crystal VAE says of a crystal, pooled over its atoms, through a small perceptron.

B crystals, N atoms (padded), D width of the pooled input, T properties.

D is what reaches the first layer: the VAE's latent channels, with `features` also the width of its encoder, so 8 + 512
at the published size. The hidden layers are D/4 and D/2 wide, but not narrower than `NARROWEST`: from the 8 channels of
a latent alone D/4 would be 2, and a LayerNorm over two numbers leaves no more than which of them is the larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from atomrl.core.records import Structures
from atomrl.networks.crystal_vae import PAIRS_AT_ONCE, CrystalVAE, CrystalVAEConfig, readable
from atomrl.structures.padding import lots
from atomrl.structures.tensors import CrystalTensors
from atomrl.util.options import BelowOne, Count, Options

NARROWEST = 16
"""Of hidden layers whose widths follow from D."""


class PredictorConfig(Options):
    """Everything but the VAE and the properties that fixes a predictor's parameters."""

    pooling: Literal["mean", "sum"] = "mean"
    """How atoms are pooled: `mean` for properties per atom or of the material, `sum` for those that grow with the
    cell."""
    features: bool = True
    """Whether the encoder's features join the latents. Latents of 8 channels alone, pooled, say little of a crystal."""
    hidden: tuple[Count, Count] | None = None
    """Widths of the two hidden layers; null: D/4 and D/2, but at least 16, with D the width of the pooled input."""
    dropout: BelowOne = 0.1
    """Dropout after each of the two hidden layers, as a probability."""

    def inputs(self, vae: CrystalVAEConfig) -> int:
        """D."""
        return vae.latent + (vae.width if self.features else 0)

    def widths(self, inputs: int) -> tuple[int, int]:
        """Of the hidden layers."""
        if self.hidden is not None:
            return self.hidden
        return max(NARROWEST, inputs // 4), max(NARROWEST, inputs // 2)


class PropertyHead(nn.Module):
    """Pooled input -> properties: the part that is trained.

    Args:
        inputs: D.
        targets: names of the T properties.
        config: widths and dropout.

    Attributes:
        mean: of the properties in the training set, (T,) float64, since a unit may put them beyond float32.
        std: their standard deviations, (T,) float64; the layers work on (value - mean) / std.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: int, targets: Sequence[str], config: PredictorConfig) -> None:
        super().__init__()
        self.targets = tuple(targets)
        first, second = config.widths(inputs)
        self.layers = nn.Sequential(
            nn.Linear(inputs, first),
            nn.LayerNorm(first),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(first, second),
            nn.LayerNorm(second),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(second, len(self.targets)),
        )
        self.register_buffer("mean", torch.zeros(len(self.targets), dtype=torch.float64))
        self.register_buffer("std", torch.ones(len(self.targets), dtype=torch.float64))

    def forward(self, pooled: Tensor) -> Tensor:
        """Standardised properties (B, T) from the pooled input (B, D)."""
        out: Tensor = self.layers(pooled)
        return out

    def standardized(self, values: Tensor) -> Tensor:
        """Properties (B, T) float64 as the layers know them, float32."""
        return ((values - self.mean) / self.std).float()

    def restored(self, standardized: Tensor) -> Tensor:
        """The layers' answer (B, T) in the properties' own units, float64."""
        return standardized * self.std + self.mean


def pool(vae: CrystalVAE, batch: CrystalTensors, config: PredictorConfig) -> Tensor:
    """The predictor's input (B, D): latents (the posterior's mean) and features, mean or sum over the real atoms.

    Coordinates are wrapped into the cell first, as those of the training crystals are: a decoder's are not.
    """
    posterior = vae.encode(replace(batch, frac_coords=batch.frac_coords % 1.0))
    rows = torch.cat([posterior.mean, posterior.features], dim=-1) if config.features else posterior.mean
    total = rows.sum(1)  # rows of padded atoms are 0
    return total if config.pooling == "sum" else total / (batch.mask > 0).sum(1, keepdim=True)


class CrystalPredictor(nn.Module):
    """Crystals -> properties: a frozen VAE and the perceptron on what it says, in evaluation mode.

    Args:
        vae: reads the crystals; shared, not copied.
        head: trained on what this VAE says.
        config: how the two are joined.
    """

    def __init__(self, vae: CrystalVAE, head: PropertyHead, config: PredictorConfig) -> None:
        super().__init__()
        self.vae, self.head, self.config = vae.requires_grad_(False), head, config
        self.eval()

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the properties."""
        return self.head.targets

    def forward(self, batch: CrystalTensors) -> Tensor:
        """Properties (B, T) float64 in their own units."""
        return self.head.restored(self.head(pool(self.vae, batch, self.config)))

    @torch.no_grad()
    def predict(self, structures: Structures) -> dict[str, Tensor]:
        """Properties of B crystals by name, (B,) float64 each, on the predictor's device.

        NaN for a crystal that has no atoms or fractional coordinates, or an element that the VAE does not know.

        Raises:
            ValueError: the structures are molecules.
        """
        found = self.head.mean.new_empty(len(structures), len(self.targets))
        for places, part in lots(structures, PAIRS_AT_ONCE):
            batch, known = readable(self.vae, part)
            known = known & batch.mask.any(1)
            found[places] = torch.where(known[:, None], self(batch), torch.nan)
        return dict(zip(self.targets, found.unbind(1), strict=True))
