"""Force alignment: a step's mean should move the way that the forces point.

    L = weight * mean over atoms of 1 - cos(mean_new - mean_old, F)

over the atoms whose shift and force are not too small to have a direction. mean_old is the behaviour policy's, F the
force on what z0_pred stands for at the same place of the walk. Published with FED-GRPO, for late transitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

AXES = 3
"""Features at the beginning of a latent that are positions."""


def forces_at(place: int) -> str:
    """Name of the field that holds the forces of a place of the walk."""
    return f"forces@{place}"


@dataclass(frozen=True)
class ForceAlignment:
    """Options.

    Attributes:
        weight: of the loss.
        min_force: eV/Å; an atom with a smaller force takes no part.
        min_delta: an atom whose mean has moved less takes no part; in the units of the latents.
    """

    weight: float = 0.5
    min_force: float = 1e-4
    min_delta: float = 1e-4

    def loss(self, mean: Tensor, old_mean: Tensor, forces: Tensor, mask: Tensor) -> Tensor:
        """The loss of B samples, (B,); 0 for one without an atom that takes part.

        Args:
            mean: of the current policy, (B, N, D), differentiable.
            old_mean: of the policy that sampled, (B, N, D).
            forces: eV/Å, (B, N, 3); NaN where there is none.
            mask: real atoms, (B, N).
        """
        shift = (mean - old_mean)[..., :AXES]
        known = forces.isfinite().all(-1) & (mask > 0)
        forces = torch.where(known[..., None], forces, 0.0).to(shift.dtype)
        size, force = shift.detach().norm(dim=-1), forces.norm(dim=-1)
        teaches = known & (force > self.min_force) & (size > self.min_delta)
        safe = torch.where(teaches[..., None], shift, 1.0)  # the gradient of a norm at 0 is NaN
        cosine = (safe * forces).sum(-1) / (safe.norm(dim=-1) * force.clamp(min=self.min_force))
        apart = torch.where(teaches, 1 - cosine, 0.0)
        mean_apart: Tensor = apart.sum(1) / teaches.sum(1).clamp(min=1)
        return self.weight * mean_apart
