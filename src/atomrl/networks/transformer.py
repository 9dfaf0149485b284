"""What the crystal VAE's encoder and decoder share, and the index embedding that the denoiser uses too."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from atomrl.util.options import contradiction

LONGEST = 2048
"""Base of the index embedding's wavelengths."""

KNOWN_GELU, UNKNOWN = 2, 0
"""What a layer of torch's says of its activation: only one that is known may take the fast path of inference."""


def require_shared(name: str, width: int, heads: int) -> None:
    """Raise UserError for a width that the attention's heads cannot share, or the index embedding's sines and cosines.

    Args:
        name: of the option that says the width, in the section that has `heads` too.
        width: of the features.
        heads: of the attention.

    Raises:
        PydanticCustomError: it is one; a validator passes it on.
    """
    if width % heads or width % 2:
        raise contradiction(
            f"{{at}}{name}={width} with {{at}}heads={heads}, a width of {width} with {heads} heads: it must be even "
            "and a multiple of the heads"
        )


def index_embedding(mask: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sinusoidal embedding of each atom's place among the real ones, `sin | cos` of i pi / 2048^(2k/d).

    A padded row gets the place of the last real atom before it: cumsum(mask) - 1.

    Args:
        mask: real atoms, (B, N).
        width: d, even.
        dtype: of the result; the angles are float32, as published.

    Returns:
        (B, N, width).
    """
    index = (mask > 0).long().cumsum(1) - 1
    k = torch.arange(width // 2, device=mask.device)
    angles = index[..., None] * math.pi / LONGEST ** (2 * k / width)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1).to(dtype)


class Transformer(nn.Module):
    """Pre-norm transformer over the atoms of a crystal, with a final LayerNorm; padded atoms are no keys.

    GELU is the exact (erf) one, in training and inference alike and on each device. The published weights were trained
    with the tanh approximation, but torch's inference fast path on a CPU answered with erf, and that is what their
    numbers are made of. On a GPU the same path has the approximation, and is not taken.
    """

    def __init__(self, width: int, heads: int, feedforward: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, feedforward, dropout=0.0, activation=functional.gelu, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features of the atoms, (B, N, width) -> the same; mask (B, N). Padded rows hold no meaning."""
        padded = mask <= 0
        for layer in self.layers:
            assert isinstance(layer, nn.TransformerEncoderLayer)
            layer.activation_relu_or_gelu = KNOWN_GELU if features.device.type == "cpu" else UNKNOWN
            features = layer(features, src_key_padding_mask=padded)
        out: Tensor = self.norm(features)
        return out
