"""Molecules as a diffusion policy: EDM's reverse process in position space."""

from __future__ import annotations

from functools import cached_property

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from atomrl.core.protocols import Draw
from atomrl.core.records import Prompts, Step, Structures, Transition
from atomrl.diffusion.edm import ReverseKernel, alpha, project, remove_mean, sigma
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.reference import WithReference
from atomrl.util.errors import UserError


def encode(numbers: Tensor, positions: Tensor, mask: Tensor, config: EDMConfig) -> Tensor:
    """Clean latents z_0 of molecules: centred positions, one-hot element, charge, each over its factor.

    Args:
        numbers: atomic numbers, (B, N) int64.
        positions: Å, (B, N, 3).
        mask: (B, N), in the positions' dtype.
        config: elements and factors.

    Returns:
        (B, N, 3 + F), 0 where padded.

    Raises:
        UserError: a real atom is of none of the elements.
    """
    one_hot = numbers[..., None] == element_numbers(config).to(numbers.device)
    unknown = (mask > 0) & ~one_hot.any(-1)
    if bool(unknown.any()):
        symbols = [_symbol(number) for number in numbers[unknown].unique().tolist()]
        raise UserError(
            f"the backbone knows {', '.join(config.elements)}; the molecules also hold {', '.join(symbols)}"
        )
    by_position, by_type, by_charge = config.normalize_factors
    columns = [remove_mean(positions / by_position, mask), one_hot.to(positions.dtype) / by_type]
    if config.include_charges:
        columns.append(numbers[..., None].to(positions.dtype) / by_charge)
    return torch.cat(columns, dim=-1) * mask[..., None]


def element_numbers(config: EDMConfig) -> Tensor:
    """Atomic number of each one-hot column, (elements,) int64.

    Raises:
        UserError: one is no element symbol.
    """
    return torch.tensor(config.atomic_numbers())


def _symbol(number: int) -> str:
    """Of an element; `Z=...` for a value that is not a number."""
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"Z={number}"


class MoleculePolicy(WithReference[EDMNetwork]):
    """EDM as a policy: each reverse step is a Gaussian in the zero-centre-of-mass space with a fixed std."""

    def __init__(self, network: EDMNetwork) -> None:
        super().__init__(network)
        self.config = network.config

    @cached_property
    def _gamma(self) -> Tensor:
        """The noise table on the CPU, where kernels are computed, (steps + 1,)."""
        return self.current.gamma.gamma.detach().cpu()

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights, and of the latents."""
        return self.current.dynamics.egnn.embedding.weight.dtype

    def trainable(self) -> nn.Module:
        """The network."""
        return self.current

    def transitions(self, num_steps: int) -> tuple[Transition, ...]:
        """T transitions (s + 1)/T -> s/T over the 1000-step schedule, s = T-1..0."""
        if not 1 <= num_steps <= self.config.diffusion_steps:
            raise UserError(f"a walk of {num_steps} steps: use between 1 and {self.config.diffusion_steps}")
        walk = []
        for index, s in enumerate(reversed(range(num_steps))):
            kernel = self._kernel(s / num_steps, (s + 1) / num_steps)
            walk.append(
                Transition(
                    index=index,
                    t=(s + 1) / num_steps,
                    s=s / num_steps,
                    trainable=kernel.std > 0,
                    balance=kernel.std / kernel.noise,
                )
            )
        return tuple(walk)

    def prior(self, prompts: Prompts, draw: Draw) -> tuple[Tensor, Tensor]:
        """Standard normal latents in the policy's space, (B, N, 3 + F), and the node mask (B, N)."""
        normals = draw(3 + self.config.features).to(self.dtype)
        atoms = torch.arange(normals.shape[1], device=normals.device)
        mask = (atoms[None, :] < prompts.sizes[:, None]).to(normals.dtype)
        return project(normals, mask), mask

    def step(self, latents: Tensor, mask: Tensor, transition: Transition, prompts: Prompts) -> Step:
        """Distribution of z_s given z_t (B, N, 3 + F)."""
        kernel = self._kernel(transition.s, transition.t)
        noise = self.predict(latents, mask, latents.new_full((len(latents),), transition.t), prompts)
        return Step(kernel.mean(latents, noise), kernel.std, noise)

    def predict(self, latents: Tensor, mask: Tensor, t: Tensor, prompts: Prompts) -> Tensor:
        """eps_theta(z_t, t), (B, N, 3 + F); at times t (B,) as they are, also between two places of the noise table."""
        context = None if prompts.context is None else prompts.context.to(latents.dtype)
        prediction: Tensor = self.answering(latents, t.to(latents.dtype), mask, context)
        return prediction

    def noise(self, normals: Tensor, mask: Tensor) -> Tensor:
        """Standard normals without their mean over the atoms' positions."""
        return project(normals, mask)

    def project(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Latents at zero centre of mass."""
        return project(latents, mask)

    def estimate(self, latents: Tensor, transition: Transition, prediction: Tensor) -> Tensor:
        """z0_pred = (z_t - sigma_t eps) / alpha_t."""
        return self._kernel(transition.s, transition.t).clean(latents, prediction)

    def decode(self, latents: Tensor, mask: Tensor, prompts: Prompts, draw: Draw) -> Structures:
        """Sample p(x, h | z_0): positions from its Gaussian, elements by argmax of z_0 itself."""
        mean, std = self.decoder(latents, mask, prompts)
        positions = mean[..., :3] + std * project(draw(latents.shape[-1]), mask)[..., :3]
        return self.read(torch.cat([positions, latents[..., 3:]], dim=-1), mask, prompts)

    def decoder(self, latents: Tensor, mask: Tensor, prompts: Prompts) -> tuple[Tensor, float]:
        """Mean (B, N, 3 + F) and std of p(x, h | z_0): (z_0 - sigma_0 eps(z_0, 0)) / alpha_0 and sigma_0 / alpha_0."""
        gamma = self._gamma[0].double()
        noise = self.predict(latents, mask, latents.new_zeros(len(latents)), prompts)
        return (latents - float(sigma(gamma)) * noise) / float(alpha(gamma)), float(torch.exp(gamma / 2))

    def read(self, clean: Tensor, mask: Tensor, prompts: Prompts) -> Structures:
        """Structures of clean latents: positions in Å, elements by argmax."""
        one_hot = clean[..., 3 : 3 + len(self.config.elements)]
        numbers = element_numbers(self.config).to(clean.device)[one_hot.argmax(-1)]
        real = mask > 0
        positions = remove_mean(clean[..., :3], mask) * self.config.normalize_factors[0]
        return Structures(torch.where(real, numbers, 0), positions, real)

    def forward_noise(self, clean: Tensor, mask: Tensor, t: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """z_t = alpha_t z_0 + sigma_t eps at times t (B,), and eps, the network's target."""
        signal, level = self.levels(t)
        noise = project(normals, mask)
        return signal.to(clean.dtype) * clean + level.to(clean.dtype) * noise, noise

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t at times t (B,), (B, 1, 1) each: those of the nearest place of the noise table.

        As published, and as a step of a walk has them: the schedule is a table, while the network is asked for t
        itself, which differs from the place's time by at most half a place, 0.0005.
        """
        gamma = self.current.gamma.gamma[torch.round(t * self.config.diffusion_steps).long()][:, None, None]
        return alpha(gamma), sigma(gamma)

    def _kernel(self, s: float, t: float) -> ReverseKernel:
        """Kernel of the step t -> s."""
        steps = self.config.diffusion_steps
        return ReverseKernel.between(self._gamma[round(s * steps)], self._gamma[round(t * steps)])
