"""Two diffusion policies whose scores are known in closed form: oracles for the core, and examples of the protocol.

`SubspaceGaussian` is shaped like the molecule policy (zero-mean subspace, fixed std), `LearnedStdGaussian` like a
latent crystal policy (no subspace, std learned per element). The data of both is N(m, v) per element, so the noise
that a perfect network predicts, the moments of the samples and every log-probability are closed-form expressions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atomrl.core.protocols import Draw
from atomrl.core.records import Prompts, Step, Structures, Transition
from atomrl.diffusion.edm import ReverseKernel, alpha, polynomial_gamma, project, sigma
from atomrl.policies.reference import WithReference

SCHEDULE_STEPS = 1000


class GaussianScore(nn.Module):
    """The exact noise prediction for data N(mean, variance), with a trainable shift of the mean.

    eps(z, t) = sigma_t (z - alpha_t mean) / (alpha_t^2 variance + sigma_t^2)

    Attributes:
        mean: of the data, (D,), trainable; the first `centred` entries have no effect in a zero-mean subspace.
        log_scale: (D,), trainable; multiplies the std of every step by exp(log_scale) where the std is learned.
    """

    def __init__(self, mean: Tensor, variance: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean.clone())
        self.log_scale = nn.Parameter(torch.zeros_like(mean))
        self.variance = variance

    def forward(self, latents: Tensor, alpha_t: Tensor | float, sigma_t: Tensor | float) -> Tensor:
        """Noise in z_t (B, N, D); alpha_t and sigma_t are numbers, or (B, 1, 1)."""
        return sigma_t * (latents - alpha_t * self.mean) / (alpha_t**2 * self.variance + sigma_t**2)


class SubspaceGaussian(WithReference[GaussianScore]):
    """Data N(m, v) projected on zero mean over the atoms in its first three features; std fixed per step."""

    learns_std = False

    def __init__(self, mean: Tensor, variance: float = 0.25) -> None:
        super().__init__(GaussianScore(mean, variance))
        self.gamma = polynomial_gamma(SCHEDULE_STEPS)

    def trainable(self) -> nn.Module:
        """The score."""
        return self.current

    def transitions(self, num_steps: int) -> tuple[Transition, ...]:
        """T equal steps from t = 1 to 0."""
        walk = []
        for index, s in enumerate(reversed(range(num_steps))):
            kernel = self._kernel(s / num_steps, (s + 1) / num_steps)
            balance = kernel.std / kernel.noise
            walk.append(Transition(index, (s + 1) / num_steps, s / num_steps, kernel.std > 0, balance))
        return tuple(walk)

    def prior(self, prompts: Prompts, draw: Draw) -> tuple[Tensor, Tensor]:
        """Standard normals (B, N, D) in the policy's space, and mask (B, N)."""
        normals = draw(len(self.current.mean)).to(self.current.mean.dtype)
        atoms = torch.arange(normals.shape[1], device=normals.device)
        mask = (atoms[None, :] < prompts.sizes[:, None]).to(normals.dtype)
        return self.project(normals, mask), mask

    def step(self, latents: Tensor, mask: Tensor, transition: Transition, prompts: Prompts) -> Step:
        """Distribution of z_s given z_t."""
        kernel = self._kernel(transition.s, transition.t)
        noise = self.project(self.answering(latents, kernel.alpha_t, kernel.sigma_t), mask)
        std: Tensor | float = kernel.std
        if self.learns_std:
            std = (kernel.std * torch.exp(self.answering.log_scale)).expand_as(latents)
        return Step(kernel.mean(latents, noise), std, noise)

    def predict(self, latents: Tensor, mask: Tensor, t: Tensor, prompts: Prompts) -> Tensor:
        """The noise in z_t at times t (B,), (B, N, D)."""
        signal, level = (values.to(latents.dtype) for values in self.levels(t))
        return self.project(self.answering(latents, signal, level), mask)

    def noise(self, normals: Tensor, mask: Tensor) -> Tensor:
        """Standard normals, projected."""
        return self.project(normals, mask)

    def project(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Zero mean over the atoms in the first three features, padded rows 0."""
        return project(latents, mask)

    def estimate(self, latents: Tensor, transition: Transition, prediction: Tensor) -> Tensor:
        """z0_pred."""
        return self._kernel(transition.s, transition.t).clean(latents, prediction)

    def decode(self, latents: Tensor, mask: Tensor, prompts: Prompts, draw: Draw) -> Structures:
        """The first three features as positions of hydrogen atoms."""
        return self.read(latents, mask, prompts)

    def read(self, clean: Tensor, mask: Tensor, prompts: Prompts) -> Structures:
        """The first three features as positions of hydrogen atoms."""
        real = mask > 0
        return Structures(real.long(), clean[..., :3] * mask[..., None], real)

    def forward_noise(self, clean: Tensor, mask: Tensor, t: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """z_t at times t (B,), and the noise in it."""
        signal, level = (values.to(clean.dtype) for values in self.levels(t))
        noise = self.project(normals, mask)
        return signal * clean + level * noise, noise

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t at times t (B,), (B, 1, 1) float64 each."""
        gamma = self.gamma.to(t.device)[torch.round(t * SCHEDULE_STEPS).long()][:, None, None].double()
        return alpha(gamma), sigma(gamma)

    def _kernel(self, s: float, t: float) -> ReverseKernel:
        return ReverseKernel.between(self.gamma[round(s * SCHEDULE_STEPS)], self.gamma[round(t * SCHEDULE_STEPS)])


class LearnedStdGaussian(SubspaceGaussian):
    """Data N(m, v) without a subspace; the std of every step is learned per element, and the last step has none."""

    learns_std = True

    def transitions(self, num_steps: int) -> tuple[Transition, ...]:
        """As the parent's, but the last step returns its mean and is not trainable."""
        *walk, last = super().transitions(num_steps)
        return (*walk, Transition(last.index, last.t, last.s, trainable=False, balance=last.balance))

    def project(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Padded rows 0."""
        return latents * mask[..., None]
