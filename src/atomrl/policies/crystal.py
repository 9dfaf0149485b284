"""Crystals as a diffusion policy: latent diffusion with a learned variance, and a VAE that decodes.

The policy's latents are the VAE's over `latent_std`: unit variance, as the denoiser was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atomrl.core.protocols import Draw
from atomrl.core.records import Prompts, Step, Structures, Transition
from atomrl.diffusion.edm import ReverseKernel
from atomrl.diffusion.gaussian import (
    DIFFUSION_STEPS,
    SAMPLERS,
    LearnedKernel,
    alpha_bar,
    ddim_kernel,
    ddpm_kernel,
    respaced_times,
)
from atomrl.networks.conditions import ConditionModule, guide
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.dit import DiT
from atomrl.policies.reference import WithReference
from atomrl.structures.tensors import CrystalTensors
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How to walk.

    Attributes:
        sampler: `ddpm`, whose std the network learns per element, or `ddim`, whose std is fixed per step.
        eta: of DDIM; 1 is stochastic, at 0 no step has a spread and nothing can be trained.
        guidance_scale: of classifier-free guidance, for conditional models; 1 is none.
    """

    sampler: str = "ddpm"
    eta: float = 1.0
    guidance_scale: float = 2.0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UserError(f"unknown sampler {self.sampler!r}: use one of {', '.join(SAMPLERS)}")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta={self.eta}: must lie between 0 and 1")


def measure_latent_std(vae: CrystalVAE, batch: CrystalTensors) -> float:
    """Standard deviation of the VAE's latents over all real elements of a batch; measured once, then stored."""
    return float(vae.encode(batch).mean[batch.mask > 0].detach().std())


def encode(vae: CrystalVAE, batch: CrystalTensors, latent_std: float) -> Tensor:
    """Clean latents z_0 of crystals in the denoiser's space, (B, N, D), 0 where padded."""
    return vae.encode(batch).mean / latent_std


class CrystalPolicy(WithReference[DiT]):
    """Latent diffusion as a policy: the denoiser is trained, VAE and conditions are frozen.

    The last step returns its mean and is not trainable, with both samplers. With the `published` layout of the
    denoiser's output a step depends on the padded width, and so on how samples are cut into buckets.
    """

    def __init__(
        self,
        denoiser: DiT,
        vae: CrystalVAE,
        latent_std: float,
        conditions: ConditionModule | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__(denoiser)
        self.vae = vae.requires_grad_(False)
        self.conditions = None if conditions is None else conditions.requires_grad_(False)
        self.latent_std = latent_std
        self.sampling = Sampling() if sampling is None else sampling

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights, and of the latents."""
        return self.current.x_embedder.weight.dtype

    def trainable(self) -> nn.Module:
        """The denoiser."""
        return self.current

    def transitions(self, num_steps: int) -> tuple[Transition, ...]:
        """The respaced walk; times are places in the 1000-step schedule over 1000.

        DDPM's std is learned per element; `balance` takes the fixed posterior's instead, its lower bound.
        """
        times = respaced_times(num_steps, self.sampling.sampler)[::-1]
        walk = []
        for index in range(num_steps):
            t, s = times[index : index + 2]
            kernel = self._kernel(s, t)
            walk.append(
                Transition(
                    index=index,
                    t=t / DIFFUSION_STEPS,
                    s=s / DIFFUSION_STEPS,
                    trainable=kernel.std > 0,
                    balance=kernel.std / kernel.noise,
                )
            )
        return tuple(walk)

    def prior(self, prompts: Prompts, draw: Draw) -> tuple[Tensor, Tensor]:
        """Standard normal latents (B, N, D), 0 where padded, and the node mask (B, N)."""
        normals = draw(self.current.config.latent).to(self.dtype)
        atoms = torch.arange(normals.shape[1], device=normals.device)
        mask = (atoms[None, :] < prompts.sizes[:, None]).to(normals.dtype)
        return self.project(normals, mask), mask

    def step(self, latents: Tensor, mask: Tensor, transition: Transition, prompts: Prompts) -> Step:
        """Distribution of z_s given z_t (B, N, D); the prediction is noise and v, (B, N, 2D), guided.

        Raises:
            UserError: the prompts have a context and the model no conditions, or the other way round.
        """
        t, s = _places(transition)
        kernel = self._kernel(s, t)
        prediction = self._predict(latents, mask, torch.full((len(latents),), t - 1, device=latents.device), prompts)
        noise, place = prediction.chunk(2, dim=-1)
        std: Tensor | float = kernel.std
        if isinstance(kernel, LearnedKernel) and transition.trainable:
            std = torch.exp(kernel.log_variance(place) / 2)
        return Step(kernel.mean(latents, noise), std, prediction)

    def predict(self, latents: Tensor, mask: Tensor, t: Tensor, prompts: Prompts) -> Tensor:
        """The noise in z_t at times t (B,), above 0, (B, N, D)."""
        steps = torch.round(t * DIFFUSION_STEPS).long() - 1
        return self._predict(latents, mask, steps, prompts).chunk(2, dim=-1)[0]

    def noise(self, normals: Tensor, mask: Tensor) -> Tensor:
        """Standard normals of the real atoms."""
        return self.project(normals, mask)

    def project(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Latents with their padded rows 0."""
        return latents * mask[..., None]

    def estimate(self, latents: Tensor, transition: Transition, prediction: Tensor) -> Tensor:
        """z0_pred = (z_t - sqrt(1 - alpha-bar_t) eps) / sqrt(alpha-bar_t), (B, N, D); not clipped."""
        t, s = _places(transition)
        return self._kernel(s, t).clean(latents, prediction.chunk(2, dim=-1)[0])

    def decode(self, latents: Tensor, mask: Tensor, prompts: Prompts, draw: Draw) -> Structures:
        """The crystals that z_0 stands for; nothing is drawn."""
        return self.read(latents, mask, prompts)

    def read(self, clean: Tensor, mask: Tensor, prompts: Prompts) -> Structures:
        """The VAE's reconstruction of clean latents times `latent_std`."""
        return self.vae.reconstruct(clean * self.latent_std, mask)

    def forward_noise(self, clean: Tensor, mask: Tensor, t: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """z_t at times t (B,), and the noise in it, the target of a prediction's first D channels."""
        signal, level = (values.to(clean.dtype) for values in self.levels(t))
        noise = self.noise(normals, mask)
        return signal * clean + level * noise, noise

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha-bar_t) and sqrt(1 - alpha-bar_t) at times t (B,), (B, 1, 1) float64 each."""
        bars = alpha_bar().to(t.device)[torch.round(t * DIFFUSION_STEPS).long()][:, None, None]
        return bars.sqrt(), (1 - bars).sqrt()

    def _kernel(self, s: int, t: int) -> ReverseKernel:
        """Kernel of the step t -> s."""
        if self.sampling.sampler == "ddim":
            return ddim_kernel(s, t, self.sampling.eta)
        return ddpm_kernel(s, t)

    def _predict(self, latents: Tensor, mask: Tensor, steps: Tensor, prompts: Prompts) -> Tensor:
        """Noise and v, (B, N, 2D), at original steps 0..999 (B,), with guidance where the model is conditional."""
        if self.conditions is None:
            if prompts.context is not None:
                raise UserError("the prompts have a condition, but this backbone is unconditional: leave it out")
            prediction: Tensor = self.answering(latents, steps, mask)
            return prediction
        if prompts.context is None:
            names = ", ".join(condition.name for condition in self.conditions.conditions)
            raise UserError(f"this backbone is conditioned on {names}: give the prompts a value for each")
        embedded = self.conditions.guidance_embedding(prompts.context)
        doubled = self.answering(torch.cat([latents] * 2), torch.cat([steps] * 2), torch.cat([mask] * 2), embedded)
        return guide(doubled, self.sampling.guidance_scale)


def _places(transition: Transition) -> tuple[int, int]:
    """Times t and s of a transition as places in the schedule, 0..1000."""
    return round(transition.t * DIFFUSION_STEPS), round(transition.s * DIFFUSION_STEPS)
