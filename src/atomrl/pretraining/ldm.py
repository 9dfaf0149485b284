"""Pre-training of the crystal denoiser on the latents of a frozen VAE (Lightning module)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atomrl.core.random import generator
from atomrl.data.crystal_batches import CrystalBatch
from atomrl.diffusion.gaussian import DIFFUSION_STEPS, training_loss
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.policies.crystal import encode
from atomrl.pretraining.base import PretrainConfig, Pretraining
from atomrl.structures.tensors import CrystalTensors


def unchanged(crystals: CrystalTensors) -> CrystalTensors:
    """The crystals as they are."""
    return crystals


class PretrainLDM(Pretraining[DiT, CrystalBatch]):
    """Trains a `DiT`, without conditions, on `training_loss`.

    A checkpoint holds the VAE and the scale of its latents too: a run that continues keeps those it began with.

    Args:
        model: shape of the denoiser.
        train: how to train it.
        vae: gives the clean latents, its posterior's mean; frozen.
        latent_std: the denoiser's latents are the VAE's over this.
        describe: which description of the crystals is learned, a function of the batch's augmented ones.
    """

    latent_std: Tensor

    def __init__(
        self,
        model: DiTConfig,
        train: PretrainConfig,
        vae: CrystalVAE,
        latent_std: float,
        describe: Callable[[CrystalTensors], CrystalTensors] = unchanged,
    ) -> None:
        super().__init__(DiT(model), train)
        self.save_hyperparameters({"model": model.model_dump(), "train": train.model_dump()})
        self.vae = vae.requires_grad_(False).eval()
        self.describe = describe
        self.register_buffer("latent_std", torch.tensor(latent_std))

    def losses(self, network: DiT, batch: CrystalBatch, purpose: str) -> dict[str, Tensor]:
        """Batch means of `mse`, `vb` (bits) and their sum, `loss`."""
        rng = generator(self.device, self.config.seed, batch.step, purpose)
        with torch.no_grad():
            clean = encode(self.vae, self.describe(batch.crystals), float(self.latent_std))
        steps = torch.randint(DIFFUSION_STEPS, clean.shape[:1], generator=rng, device=self.device)
        noise = torch.randn(clean.shape, generator=rng, device=self.device)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            out: Tensor = network(noisy, times, batch.mask)
            return out

        terms = training_loss(predict, clean, batch.mask, steps, noise)
        return {name: values.mean() for name, values in terms.items()}
