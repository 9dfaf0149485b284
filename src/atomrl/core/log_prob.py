"""Log-probability and divergence of Gaussian steps, over real atoms only, in float32 or better."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to this size (and the clamped ones counted): exp(20) is already beyond any clip range."""


def gaussian_log_prob(value: Tensor, mean: Tensor, std: Tensor | float, mask: Tensor, reduction: str) -> Tensor:
    """Log-density of latents (B, N, D) under a Gaussian, summed or averaged over the real atoms' elements, (B,).

    In a zero-centre-of-mass space this counts three degrees of freedom too many: a constant that cancels in ratios.

    Args:
        value: z_s, (B, N, D).
        mean: of the step, (B, N, D).
        std: of the step, a number or (B, N, D).
        mask: (B, N).
        reduction: `sum` or `mean`.
    """
    spread = torch.as_tensor(std, dtype=mean.dtype, device=mean.device)
    density = -((value - mean) / spread).square() / 2 - torch.log(spread) - math.log(2 * math.pi) / 2
    return over_elements(density, mask, reduction)


def gaussian_kl(
    mean: Tensor, std: Tensor | float, other_mean: Tensor, other_std: Tensor | float, mask: Tensor, reduction: str
) -> Tensor:
    """KL(p || q) of two Gaussians (B, N, D), reduced as the log-probability, (B,).

    With equal std this is sum ||mean - other_mean||^2 / (2 std^2).
    """
    spread = torch.as_tensor(std, dtype=mean.dtype, device=mean.device)
    other = torch.as_tensor(other_std, dtype=mean.dtype, device=mean.device)
    terms = torch.log(other / spread) + (spread.square() + (mean - other_mean).square()) / (2 * other.square()) - 0.5
    return over_elements(terms, mask, reduction)


def over_elements(terms: Tensor, mask: Tensor, reduction: str) -> Tensor:
    """Sum or mean of (B, N, D) terms over the elements of real atoms, (B,); mask (B, N)."""
    total = (terms * mask[..., None]).sum((1, 2))
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / (mask.sum(1) * terms.shape[-1])
    raise ValueError(f"log_prob_reduction is `sum` or `mean`, got {reduction!r}")
