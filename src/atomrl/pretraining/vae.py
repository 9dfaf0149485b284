"""Pre-training of the crystal VAE (Lightning module), with its reconstruction match rate."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from atomrl.core.random import generator
from atomrl.data.crystal_batches import CrystalBatch
from atomrl.evaluation.reconstruction import match_rate
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig, LossWeights, vae_loss
from atomrl.pretraining.base import PretrainConfig, Pretraining
from atomrl.structures.tensors import CrystalTensors


class PretrainVAE(Pretraining[CrystalVAE, CrystalBatch]):
    """Trains a `CrystalVAE` on `vae_loss`."""

    def __init__(self, model: CrystalVAEConfig, train: PretrainConfig, weights: LossWeights) -> None:
        super().__init__(CrystalVAE(model), train)
        settings = {"model": model, "train": train, "weights": weights}
        self.save_hyperparameters({name: options.model_dump() for name, options in settings.items()})
        self.weights = weights

    def losses(self, network: CrystalVAE, batch: CrystalBatch, purpose: str) -> dict[str, Tensor]:
        """The terms of `vae_loss`."""
        rng = generator(self.device, self.config.seed, batch.step, purpose)
        shape = (*batch.mask.shape, network.config.latent)
        normals = torch.randn(shape, generator=rng, device=self.device)
        return vae_loss(network, batch.crystals, normals, self.weights)


class ReconstructionRate(Callback):
    """Logs `val_match_rate`: the share of crystals that the averaged weights give back."""

    def __init__(self, crystals: CrystalTensors) -> None:
        self.crystals = crystals

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """With each validation (Lightning)."""
        assert isinstance(pl_module, PretrainVAE)
        with torch.autocast(pl_module.device.type, enabled=False):
            rate = match_rate(pl_module.average, self.crystals.to(pl_module.device))
        pl_module.log("val_match_rate", rate)
