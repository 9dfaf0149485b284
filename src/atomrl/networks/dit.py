"""The denoiser of crystal latents: a diffusion transformer with adaLN-zero (Peebles & Xie 2023).

Parameters carry their published names. B crystals, N atoms (padded), D latent channels, H features.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from atomrl.networks.transformer import index_embedding, require_shared
from atomrl.util.options import Count, Options

FREQUENCIES = 256
LONGEST_PERIOD = 10_000

PRESETS = {
    "S": {"depth": 6, "hidden": 384, "heads": 6},
    "B": {"depth": 12, "hidden": 768, "heads": 12},
    "L": {"depth": 24, "hidden": 1024, "heads": 16},
}


class DiTConfig(Options):
    """Everything that fixes a denoiser's parameters, and how its output is read."""

    latent: Count = 8
    """Channels of an atom's latent, D; as many as the VAE has."""
    hidden: Count = 384
    """Features of an atom, H; even, and a multiple of `heads`."""
    depth: Count = 6
    """Blocks of the network."""
    heads: Count = 6
    """Heads of the attention."""
    mlp_ratio: Count = 4
    """Hidden width of the perceptron in a block, as a multiple of `hidden`."""
    layout: Literal["channels", "published"] = "channels"
    """Where noise and variance stand in the (N, 2D) output for N atoms. `channels`: the first and the last D channels
    of each atom, so that padding has no effect. `published`, for imported weights only: the output is read as (2N, D),
    whose first N rows are the noise and whose last N are the variance; an atom's numbers then come from other atoms,
    padded ones too, and depend on the padded width N."""

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        """Raise UserError for a width that the heads cannot share."""
        require_shared("hidden", self.hidden, self.heads)
        return self

    @classmethod
    def preset(cls, size: str, **changes: Any) -> DiTConfig:
        """A published size, S, B or L, with changes."""
        return cls(**{**PRESETS[size], **changes})


def time_embedding(time: Tensor) -> Tensor:
    """`cos | sin` of t / 10,000^(k/128), (B,) -> (B, 256), in float32: at t = 999 the rounding of the angles shows."""
    half = FREQUENCIES // 2
    exponents = torch.arange(half, dtype=torch.float32, device=time.device) / half
    angles = time.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * exponents)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def _modulate(features: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Features (B, N, H) scaled by 1 + scale and shifted, both (B, H)."""
    return features * (1 + scale[:, None]) + shift[:, None]


def _plain_norm(features: Tensor) -> Tensor:
    """LayerNorm without learned scale and shift."""
    return functional.layer_norm(features, features.shape[-1:], eps=1e-6)


def _modulation(hidden: int, parts: int) -> nn.Sequential:
    """Condition -> shifts, scales and gates; zero at the start, so that a block begins as the identity."""
    linear = nn.Linear(hidden, parts * hidden)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear layer, Xavier uniform, bias 0."""
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class SelfAttention(nn.Module):
    """Attention over real atoms, with the parameters of `nn.MultiheadAttention`.

    Not that module itself: without gradients it takes another path than with them, and the log-probabilities of
    rollout and update must come from the same operations. Under a CPU's autocast the attention itself stays in the
    features' precision: for the few atoms of a cell torch's bfloat16 kernel there is several times slower.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.out_proj = _linear(hidden, hidden)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        """Features (B, N, H) -> the same; keys: what may be looked at, (B, 1, 1, N) bool."""
        projected = functional.linear(features, self.in_proj_weight, self.in_proj_bias).to(features.dtype)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        with torch.autocast("cpu", enabled=False):
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Perceptron(nn.Module):
    """Linear, GELU (tanh), Linear."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.fc1 = _linear(hidden, inner)
        self.fc2 = _linear(inner, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, N, H) -> the same."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(features), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention and perceptron, each modulated and gated by the condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn = SelfAttention(config.hidden, config.heads)
        self.mlp = Perceptron(config.hidden, config.mlp_ratio * config.hidden)
        self.adaLN_modulation = _modulation(config.hidden, 6)

    def forward(self, features: Tensor, condition: Tensor, keys: Tensor) -> Tensor:
        """Features (B, N, H), condition (B, H), keys (B, 1, 1, N)."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaLN_modulation(condition).chunk(6, dim=-1)
        features = features + gate[:, None] * self.attn(_modulate(_plain_norm(features), shift, scale), keys)
        out: Tensor = features + mlp_gate[:, None] * self.mlp(_modulate(_plain_norm(features), mlp_shift, mlp_scale))
        return out


class FinalLayer(nn.Module):
    """Modulated linear map to noise and variance; zero at the start."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.adaLN_modulation = _modulation(config.hidden, 2)
        self.linear = nn.Linear(config.hidden, 2 * config.latent)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Features (B, N, H), condition (B, H) -> (B, N, 2D)."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        out: Tensor = self.linear(_modulate(_plain_norm(features), shift, scale))
        return out


class TimeEmbedder(nn.Module):
    """Time step -> (B, H)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        for place in (0, 2):
            linear = self.mlp[place]
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        """Original time step 0..999, (B,)."""
        out: Tensor = self.mlp(time_embedding(time).to(dtype))
        return out


class DiT(nn.Module):
    """Noise and variance in a noisy latent, given its time step and a condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.x_embedder = _linear(config.latent, config.hidden)
        self.t_embedder = TimeEmbedder(config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config)

    def forward(self, latents: Tensor, time: Tensor, mask: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict noise and variance.

        Args:
            latents: x_t, (B, N, D).
            time: original time step, 0..999, (B,).
            mask: real atoms, (B, N). Padded atoms are computed too, but are no keys of the attention.
            condition: embedded condition, (B, H), or None.

        Returns:
            (B, N, 2D), whatever the layout: D channels of noise, then D of v, the place of the log-variance in its
            range; 0 where padded.
        """
        features = self.x_embedder(latents)
        features = features + index_embedding(mask, self.config.hidden, features.dtype)
        embedded = self.t_embedder(time, features.dtype)
        if condition is not None:
            embedded = embedded + condition
        keys = (mask > 0)[:, None, None, :]
        for block in self.blocks:
            features = block(features, embedded, keys)
        out: Tensor = self.final_layer(features, embedded)
        if self.config.layout == "published":
            rows = out.reshape(len(out), -1, self.config.latent)
            out = torch.cat(rows.chunk(2, dim=1), dim=-1)
        return out * mask[..., None].to(out.dtype)
