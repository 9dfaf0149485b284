"""Pre-training of a property predictor on what a frozen VAE says of crystals (Lightning module)."""

from __future__ import annotations

import torch
from torch import Tensor

from atomrl.core.random import key
from atomrl.data.crystal_batches import CrystalBatch
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead, pool
from atomrl.pretraining.base import PretrainConfig, Pretraining


class PretrainPredictor(Pretraining[PropertyHead, CrystalBatch]):
    """Trains a `PropertyHead` on standardised properties; a crystal counts with those of its properties that are known.

    A checkpoint holds the VAE, and mean and standard deviation of the properties too: a run that continues keeps those
    it began with.

    Args:
        head: what is trained.
        model: how its input is made.
        train: how to train it.
        vae: reads the crystals; frozen.
    """

    def __init__(self, head: PropertyHead, model: PredictorConfig, train: PretrainConfig, vae: CrystalVAE) -> None:
        super().__init__(head, train)
        shape = model.model_dump(exclude={"dropout"})  # a run may go on with another dropout: the network is the same
        settings = {"model": shape, "train": train.model_dump()}
        self.save_hyperparameters({**settings, "targets": list(head.targets)})
        self.model = model
        self.vae = vae.requires_grad_(False).eval()

    def losses(self, network: PropertyHead, batch: CrystalBatch, purpose: str) -> dict[str, Tensor]:
        """Mean squared error, `loss`, and mean absolute error, `mae`, in standard deviations of the properties."""
        with torch.no_grad():
            pooled = pool(self.vae, batch.crystals, self.model)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # dropout draws from torch's own generator
            torch.manual_seed(key(self.config.seed, batch.step, purpose))
            predicted = network(pooled)
        values = network.standardized(torch.stack([batch.properties[name] for name in network.targets], dim=1))
        known = values.isfinite()
        errors = torch.where(known, predicted - values.nan_to_num(0.0, 0.0, 0.0), 0.0)
        count = known.sum()
        return {"loss": errors.square().sum() / count, "mae": errors.abs().sum() / count}

    @property
    def predictor(self) -> CrystalPredictor:
        """The VAE and the averaged weights, in evaluation mode."""
        return CrystalPredictor(self.vae, self.average, self.model)
