"""Gaussian diffusion of latents: linear betas, respaced DDPM and DDIM steps, learned variance, training loss.

Times are places in the table of alpha-bar, 0..1000: 0 is clean, and the network is told the original step t - 1.

| equation | here |
|---|---|
| alpha-bar_t = prod (1 - beta), beta = 1e-4..0.02 | `alpha_bar` |
| x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) eps | `alpha_t`, `sigma_t` |
| beta = 1 - alpha-bar_t / alpha-bar_s | exp(`log_beta`) |
| posterior beta = beta (1 - alpha-bar_s) / (1 - alpha-bar_t) | exp(`log_posterior`) |
| DDPM mean = (x_t - beta / sqrt(1 - alpha-bar_t) eps) / sqrt(1 - beta) | `ddpm_kernel` |
| log-variance = f log(beta) + (1 - f) log(posterior beta), f = (v + 1) / 2 | `LearnedKernel.log_variance` |
| DDIM mean = sqrt(alpha-bar_s) x0_pred + sqrt(1 - alpha-bar_s - std^2) eps | `ddim_kernel` |

x0_pred is not clipped, so both means are linear in x_t and the predicted noise.
Sources: Ho et al. 2020; Song et al. 2021 (DDIM); Nichol & Dhariwal 2021 (learned variance, respacing).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from atomrl.diffusion.edm import ReverseKernel
from atomrl.util.errors import UserError

DIFFUSION_STEPS = 1000
SAMPLERS = ("ddpm", "ddim")


@dataclass(frozen=True)
class LearnedKernel(ReverseKernel):
    """One reverse step whose variance the network places between two bounds.

    `std` is that of the lower bound, the fixed posterior: 0 for the step to t = 0.

    Attributes:
        log_beta: log-variance for v = 1.
        log_posterior: log-variance for v = -1.
    """

    log_beta: float
    log_posterior: float

    def log_variance(self, place: Tensor) -> Tensor:
        """Log-variance for the network's v, same shape; v is not clamped."""
        return _between(self.log_posterior, self.log_beta, place)


def _between(low: Tensor | float, high: Tensor | float, place: Tensor) -> Tensor:
    """The point of [low, high] at a place in [-1, 1]."""
    fraction = (place + 1) / 2
    return fraction * high + (1 - fraction) * low


@lru_cache(maxsize=1)
def alpha_bar() -> Tensor:
    """alpha-bar at times 0..1000, (1001,) float64, falling from 1."""
    betas = torch.linspace(1e-4, 0.02, DIFFUSION_STEPS, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, dim=0)])


def ddpm_kernel(s: int, t: int) -> LearnedKernel:
    """DDPM's step between two times, 0 <= s < t <= 1000."""
    before, after = float(alpha_bar()[s]), float(alpha_bar()[t])
    beta = 1 - after / before
    posterior = beta * (1 - before) / (1 - after)
    return LearnedKernel(
        signal=1 / math.sqrt(1 - beta),
        noise=beta / math.sqrt((1 - after) * (1 - beta)),
        std=math.sqrt(posterior),
        alpha_t=math.sqrt(after),
        sigma_t=math.sqrt(1 - after),
        log_beta=math.log(beta),
        log_posterior=math.log(posterior) if posterior > 0 else -math.inf,
    )


def ddim_kernel(s: int, t: int, eta: float) -> ReverseKernel:
    """DDIM's step between two times, 0 <= s < t <= 1000; eta 1 is stochastic, 0 deterministic."""
    before, after = float(alpha_bar()[s]), float(alpha_bar()[t])
    # In float32, as published: near t = 0, where 1 - alpha-bar loses digits, this moves the std by up to 1e-4 of it.
    low, high = alpha_bar()[s].float(), alpha_bar()[t].float()
    std = eta * ((1 - low) / (1 - high)).sqrt() * (1 - high / low).sqrt()
    direction = float((1 - low - std.square()).clamp(min=0).sqrt())
    alpha_s, alpha_t, sigma_t = math.sqrt(before), math.sqrt(after), math.sqrt(1 - after)
    return ReverseKernel(
        signal=alpha_s / alpha_t,
        noise=alpha_s * sigma_t / alpha_t - direction,
        std=float(std),
        alpha_t=alpha_t,
        sigma_t=sigma_t,
    )


def respaced_times(num_steps: int, sampler: str) -> tuple[int, ...]:
    """Times of a walk of `num_steps` steps, ascending, 0 first; the network is told each time but 0, less 1.

    DDPM spreads the steps evenly, original step round(k 999 / (num_steps - 1)); DDIM has an integer stride from 0.

    Raises:
        UserError: there is no such walk.
    """
    if sampler == "ddpm":
        if not 2 <= num_steps <= DIFFUSION_STEPS:
            raise UserError(f"a ddpm walk of {num_steps} steps: use between 2 and {DIFFUSION_STEPS}")
        steps = [round(k * (DIFFUSION_STEPS - 1) / (num_steps - 1)) for k in range(num_steps)]
    elif sampler == "ddim":
        lengths = {len(range(0, DIFFUSION_STEPS, stride)): stride for stride in range(DIFFUSION_STEPS // 2, 0, -1)}
        if num_steps not in lengths:
            near = sorted(sorted(lengths, key=lambda length: abs(length - num_steps))[:2])
            raise UserError(
                f"a ddim walk of {num_steps} steps needs an integer stride over {DIFFUSION_STEPS}: "
                f"use {near[0]} or {near[1]} steps, or the ddpm sampler"
            )
        steps = list(range(0, DIFFUSION_STEPS, lengths[num_steps]))
    else:
        raise UserError(f"unknown sampler {sampler!r}: use one of {', '.join(SAMPLERS)}")
    return (0, *(step + 1 for step in steps))


@lru_cache(maxsize=8)
def ddpm_kernels(num_steps: int) -> tuple[LearnedKernel, ...]:
    """All steps of a DDPM walk, by respaced index (0 is the last step taken).

    The last step's posterior has no variance; in `log_posterior` the second one's stands in for it.
    """
    kernels = [ddpm_kernel(s, t) for s, t in pairwise(respaced_times(num_steps, "ddpm"))]
    return (replace(kernels[0], log_posterior=kernels[1].log_posterior), *kernels[1:])


@lru_cache(maxsize=1)
def _training_table() -> Tensor:
    """alpha_t, sigma_t, factor of the noise in the mean, log beta and log posterior beta, (1000, 5) float64."""
    return torch.tensor(
        [
            (kernel.alpha_t, kernel.sigma_t, kernel.noise, kernel.log_beta, kernel.log_posterior)
            for kernel in ddpm_kernels(DIFFUSION_STEPS)
        ],
        dtype=torch.float64,
    )


def training_loss(
    predict: Callable[[Tensor, Tensor], Tensor], clean: Tensor, mask: Tensor, steps: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Loss of the denoiser at given steps and noise: mse of the noise plus the variational bound for the variance.

    The bound's term is KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), and -log p(x_0 | x_1), a Gaussian density, at the
    first step; it does not move the predicted noise. Both means are linear in the noise, so they differ by the noise's
    factor times its error.

    Args:
        predict: (x_t, original step (B,)) -> noise and v, (B, N, 2D).
        clean: x_0, (B, N, D), of unit variance; lower precision than float32, as under autocast, is raised to that, in
            which alone the bounds of the variance differ from each other.
        mask: real atoms, (B, N).
        steps: original steps 0..999, (B,) int64.
        noise: standard normals (B, N, D), kept on padded atoms as well.

    Returns:
        Per sample, means over the real atoms' channels, (B,): `mse`, `vb` (bits), `loss` = mse + vb.
    """
    clean = clean.to(torch.promote_types(clean.dtype, torch.float32))
    rows = _training_table().to(clean.device)[steps].to(clean.dtype)
    alpha_t, sigma_t, factor, log_beta, log_posterior = rows[:, :, None, None].unbind(1)
    predicted, place = predict(alpha_t * clean + sigma_t * noise, steps).chunk(2, dim=-1)
    log_variance = _between(log_posterior, log_beta, place)
    distance = (factor * (noise - predicted.detach())).square() * torch.exp(-log_variance)
    divergence = (log_variance - log_posterior - 1 + torch.exp(log_posterior - log_variance) + distance) / 2
    surprise = (log_variance + math.log(2 * math.pi) + distance) / 2
    bound = torch.where(steps[:, None, None] == 0, surprise, divergence) / math.log(2)
    weights = mask.to(clean.dtype)[..., None]
    elements = weights.sum((1, 2)) * clean.shape[-1]
    mse = ((noise - predicted).square() * weights).sum((1, 2)) / elements
    vb = (bound * weights).sum((1, 2)) / elements
    return {"mse": mse, "vb": vb, "loss": mse + vb}
