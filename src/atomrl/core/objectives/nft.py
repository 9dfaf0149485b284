"""DiffusionNFT (arXiv 2509.16117): denoise towards good samples and away from bad ones, around the old policy.

| equation | here |
|---|---|
| r = 1/2 + clip(A, -c, c) / (2c) | `Predictions.advantages` is clip(A, -c, c) / c |
| e+ = (1 - b) eps_old + b eps_theta, e- = (1 + b) eps_old - b eps_theta | `NFT.draw_loss` |
| l = mean (e - eps)^2 / max(mean abs(e - eps), 1e-5), no gradient through the divisor | `NFT.denoising` |
| L = c mean[w_t (r l+ + (1 - r) l-) / b] | `NFT.draw_loss` |
| + lambda mean (eps_theta - eps_initial)^2 | `reference_weight`, in `ForwardObjective.loss` |
| old policy: eta old + (1 - eta) current, eta = min(0.001 k, 0.5) | `ForwardObjective.old_decay` |

Without the divisor the loss is, exactly, 2 A <eps_old - eps, d> + c b mean d^2 + a constant, d = eps_theta - eps_old:
a denoising gradient weighed by the advantage, and a pull back to the old policy. The bracket is a mean over elements.

The published loss compares clean samples, (z_t - sigma_t e) / alpha_t, not noises: `time_weighting: clean`. In terms of
noises l then has a factor w_t, sigma_t / alpha_t with the divisor, its square without, at most `max_time_weight`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from atomrl.core.objectives.base import StepLoss
from atomrl.core.objectives.forward import ForwardObjective, Predictions, forward_spec
from atomrl.core.objectives.forward_options import NFTOptions

SMALLEST_DIVISOR = 1e-5


class NFT(ForwardObjective[NFTOptions]):
    """The objective; see the module's docstring."""

    def draw_loss(self, predictions: Predictions) -> StepLoss:
        """L of one draw, (B,)."""
        options, found = self.options, predictions
        step = options.b * (found.current - found.old)
        good = (1 + found.advantages) / 2
        towards = self.denoising(found, found.old + step)
        away = self.denoising(found, found.old - step)
        loss = options.clip_advantage * (good * towards + (1 - good) * away) / options.b
        return StepLoss(loss * self.time_weight(found), {})

    def denoising(self, predictions: Predictions, noise: Tensor) -> Tensor:
        """The loss l of noises (B, N, D), (B,)."""
        error = noise - predictions.target
        squared = predictions.mean(error.square())
        if not self.options.self_normalized:
            return squared
        return squared / predictions.mean(error.abs()).detach().clamp(min=SMALLEST_DIVISOR)

    def time_weight(self, predictions: Predictions) -> Tensor:
        """w_t, (B,)."""
        if self.options.time_weighting == "noise":
            return torch.ones_like(predictions.times)
        ratio = predictions.noise / predictions.signal
        weight = ratio if self.options.self_normalized else ratio.square()
        return weight.clamp(max=self.options.max_time_weight)


SPEC = forward_spec(NFT, NFTOptions, "nft")
