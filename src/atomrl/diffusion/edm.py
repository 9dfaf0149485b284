"""EDM's variance-preserving noise schedule and Gaussian kernels (Hoogeboom et al. 2022), on tensors only.

| equation | here |
|---|---|
| gamma_t = -log(alpha_t^2 / sigma_t^2) | `gamma` |
| alpha_t^2 = sigmoid(-gamma_t), sigma_t^2 = sigmoid(gamma_t) | `alpha`, `sigma` |
| sigma^2_{t|s} = -expm1(softplus(gamma_s) - softplus(gamma_t)) | `sigma2_ts` |
| alpha_{t|s} = alpha_t / alpha_s | `alpha_ts` |
| mean = z_t / alpha_ts - sigma2_ts / (alpha_ts sigma_t) eps | `ReverseKernel.mean` |
| std = sqrt(sigma2_ts) sigma_s / sigma_t | `ReverseKernel.std` |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


def polynomial_gamma(steps: int = 1000, precision: float = 1e-5) -> Tensor:
    """Table of gamma for the schedule `polynomial_2`: (steps + 1,), float32, rising with the noise."""
    points = steps + 1
    u = torch.linspace(0, points, points, dtype=torch.float64)
    alpha2 = (1 - (u / points) ** 2) ** 2
    ratios = alpha2 / torch.cat([torch.ones(1, dtype=torch.float64), alpha2[:-1]])
    alpha2 = torch.cumprod(ratios.clamp(0.001, 1), dim=0)
    alpha2 = (1 - 2 * precision) * alpha2 + precision
    return -(torch.log(alpha2) - torch.log1p(-alpha2)).to(torch.float32)


def remove_mean(positions: Tensor, mask: Tensor) -> Tensor:
    """Project positions (B, N, 3) onto zero centre of mass over the real atoms; padded rows become 0."""
    weights = mask[..., None]
    mean = (positions * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)
    return (positions - mean) * weights


def project(latents: Tensor, mask: Tensor) -> Tensor:
    """Project latents (B, N, 3 + F): positions to zero centre of mass, padded rows to 0."""
    return torch.cat([remove_mean(latents[..., :3], mask), latents[..., 3:] * mask[..., None]], dim=-1)


def alpha(gamma: Tensor) -> Tensor:
    """Signal scale at a noise level gamma."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """Noise scale at a noise level gamma."""
    return torch.sigmoid(gamma).sqrt()


@dataclass(frozen=True)
class ReverseKernel:
    """Coefficients of one reverse step t -> s < t; all numbers, the same for each sample and element.

    Attributes:
        signal: 1 / alpha_ts, factor of z_t in the mean.
        noise: sigma2_ts / (alpha_ts sigma_t), factor of the predicted noise in the mean, subtracted.
        std: standard deviation of the step.
        alpha_t, sigma_t: the noise level at t.
    """

    signal: float
    noise: float
    std: float
    alpha_t: float
    sigma_t: float

    @staticmethod
    def between(gamma_s: Tensor, gamma_t: Tensor) -> ReverseKernel:
        """Kernel between two noise levels, given as scalars; computed in float64."""
        low, high = gamma_s.double(), gamma_t.double()
        sigma2_ts = -torch.expm1(softplus(low) - softplus(high))
        alpha_ts = torch.exp((logsigmoid(-high) - logsigmoid(-low)) / 2)
        return ReverseKernel(
            signal=float(1 / alpha_ts),
            noise=float(sigma2_ts / (alpha_ts * sigma(high))),
            std=float(sigma2_ts.sqrt() * sigma(low) / sigma(high)),
            alpha_t=float(alpha(high)),
            sigma_t=float(sigma(high)),
        )

    def mean(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Mean of p(z_s | z_t), shape of the latents."""
        return self.signal * latents - self.noise * noise

    def clean(self, latents: Tensor, noise: Tensor) -> Tensor:
        """z0_pred: the clean latent that the predicted noise implies."""
        return (latents - self.sigma_t * noise) / self.alpha_t
