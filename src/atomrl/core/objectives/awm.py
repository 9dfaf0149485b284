"""Advantage-weighted matching (arXiv 2509.25050): the denoising loss in place of a log-probability.

| equation | here |
|---|---|
| l = mean (eps_theta - eps)^2 | `Predictions.mean` |
| log p = -w(t) l, or -w(t)/p ((l + 1e-10)^p - 1e-10^p) | `AWM.log_prob`, `power` |
| rho = exp(log p_theta - log p_old), at the same z_t | `AWM.draw_loss` |
| L = mean max(-A rho, -A clip(rho, 1 - eps, 1 + eps)) | `AWM.draw_loss` |
| + b_old mean (eps_theta - eps_old)^2 | `old_weight` |
| + b_ref mean (eps_theta - eps_initial)^2 | `reference_weight`, in `ForwardObjective.loss` |

A is clip(A, -c, c) / c. The published form pulls towards a fast moving average of the current weights and compares with
the policy that sampled; here both are the old policy, whose decay is min(0.001 k, 0.3) in the published settings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from atomrl.core.log_prob import LOG_RATIO_LIMIT
from atomrl.core.objectives.base import StepLoss
from atomrl.core.objectives.forward import ForwardObjective, Predictions, forward_spec
from atomrl.core.objectives.forward_options import AWMOptions

SMALLEST = 1e-10
"""Added under the power, whose slope at 0 has no bound."""


class AWM(ForwardObjective[AWMOptions]):
    """The objective; see the module's docstring."""

    def draw_loss(self, predictions: Predictions) -> StepLoss:
        """L of one draw, (B,)."""
        options, found = self.options, predictions
        difference = self.log_prob(found, found.current) - self.log_prob(found, found.old)
        ratio = torch.exp(difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
        clipped = ratio.clamp(1 - options.clip_range, 1 + options.clip_range)
        loss = torch.maximum(-found.advantages * ratio, -found.advantages * clipped)
        if options.old_weight:
            loss = loss + options.old_weight * found.mean((found.current - found.old).square())
        return StepLoss(loss, {"clip_frac": ((ratio - 1).abs() > options.clip_range).to(ratio.dtype)})

    def log_prob(self, predictions: Predictions, noise: Tensor) -> Tensor:
        """Logarithm of p of a prediction (B, N, D), (B,)."""
        error = predictions.mean((noise - predictions.target).square())
        power = self.options.power
        if power != 1:
            error = ((error + SMALLEST) ** power - SMALLEST**power) / power
        return -error * predictions.times if self.options.time_weighting == "t" else -error


SPEC = forward_spec(AWM, AWMOptions, "awm")
