"""Pre-training of the EDM backbone: predict the noise in real molecules (Lightning module)."""

from __future__ import annotations

import torch
from torch import Tensor

from atomrl.core.conditioning import PropertyConditioning
from atomrl.core.random import generator
from atomrl.data.batches import MoleculeBatch
from atomrl.diffusion.edm import alpha, project, sigma
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import encode
from atomrl.pretraining.base import PretrainConfig, Pretraining


def denoising_loss(
    network: EDMNetwork, latents: Tensor, mask: Tensor, steps: Tensor, noise: Tensor, context: Tensor | None = None
) -> Tensor:
    """Squared error of the predicted noise, mean over the channels of the real atoms, (B,).

    Args:
        network: predicts the noise.
        latents: clean z_0 (B, N, 3 + F).
        mask: (B, N).
        steps: time step of each molecule, 0..diffusion_steps, (B,) int64.
        noise: (B, N, 3 + F), projected.
        context: (B, C), of a conditional network.
    """
    gamma = network.gamma.gamma[steps][:, None, None]
    noisy = alpha(gamma) * latents + sigma(gamma) * noise
    predicted = network(noisy, steps / network.config.diffusion_steps, mask, context)
    error: Tensor = ((predicted - noise).square() * mask[..., None]).sum((1, 2))
    return error / (mask.sum(1) * latents.shape[-1])


class PretrainEDM(Pretraining[EDMNetwork, MoleculeBatch]):
    """Trains an `EDMNetwork` on `denoising_loss`.

    Args:
        model: shape of the network.
        train: how to train it.
        conditioning: how a batch's properties become the context of a conditional network.
    """

    def __init__(
        self, model: EDMConfig, train: PretrainConfig, conditioning: PropertyConditioning | None = None
    ) -> None:
        super().__init__(EDMNetwork(model), train)
        self.save_hyperparameters({"model": model.model_dump(), "train": train.model_dump()})
        self.model_config, self.conditioning = model, conditioning

    def start_from(self, network: EDMNetwork) -> None:
        """Take the weights of a network of the same shape, for the averaged ones too.

        It may lack context columns: what belongs to them is 0, so that before the first step they change nothing.
        """
        for own in (self.network, self.average):
            wanted = own.state_dict()
            own.load_state_dict(
                {name: _widened(tensor, wanted[name].shape) for name, tensor in network.state_dict().items()}
            )

    def losses(self, network: EDMNetwork, batch: MoleculeBatch, purpose: str) -> dict[str, Tensor]:
        """Mean of `denoising_loss`."""
        rng = generator(self.device, self.config.seed, batch.step, purpose)
        latents = encode(batch.numbers, batch.positions, batch.mask, self.model_config)
        steps = torch.randint(
            self.model_config.diffusion_steps + 1, latents.shape[:1], generator=rng, device=self.device
        )
        noise = project(torch.randn(latents.shape, generator=rng, device=self.device), batch.mask)
        context = None if self.conditioning is None else self.conditioning.scaled(batch.properties)
        return {"loss": denoising_loss(network, latents, batch.mask, steps, noise, context).mean()}


def _widened(tensor: Tensor, shape: torch.Size) -> Tensor:
    """A tensor with zeros behind its rows and columns, up to a shape."""
    wide = tensor.new_zeros(shape)
    wide[tuple(slice(size) for size in tensor.shape)] = tensor
    return wide
