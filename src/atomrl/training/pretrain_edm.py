"""Pre-training of the EDM backbone: predict the noise in real molecules (Lightning module)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from atomrl.data.batches import Listed, MoleculeBatch, SizedBatches
from atomrl.data.qm9 import MoleculeSet
from atomrl.diffusion.edm import alpha, project, sigma
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import encode
from atomrl.random import generator
from atomrl.schedules import follow
from atomrl.training.averaging import move_average


@dataclass(frozen=True)
class PretrainConfig:
    """How to train.

    Attributes:
        steps: optimizer steps in all.
        decay_steps: the learning rate is constant but for the last `decay_steps`, over which it falls to 0. A run
            whose length is not known yet keeps a constant rate; a short decay from any of its checkpoints gives
            weights to use.
        batch_size: molecules per step.
        lr: peak learning rate of AdamW.
        warmup: steps of linear warm-up.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: decay of the averaged weights per step.
        seed: key of batches and noise.
    """

    steps: int = 100_000
    decay_steps: int = 10_000
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 500
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9995
    seed: int = 0


def denoising_loss(network: EDMNetwork, latents: Tensor, mask: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the predicted noise, mean over the channels of the real atoms, (B,).

    Args:
        network: predicts the noise.
        latents: clean z_0 (B, N, 3 + F).
        mask: (B, N).
        steps: time step of each molecule, 0..diffusion_steps, (B,) int64.
        noise: (B, N, 3 + F), projected.
    """
    gamma = network.gamma.gamma[steps][:, None, None]
    noisy = alpha(gamma) * latents + sigma(gamma) * noise
    predicted = network(noisy, steps / network.config.diffusion_steps, mask)
    error: Tensor = ((predicted - noise).square() * mask[..., None]).sum((1, 2))
    return error / (mask.sum(1) * latents.shape[-1])


class PretrainEDM(lightning.LightningModule):
    """Trains an `EDMNetwork`; `averaged` holds its exponential moving average, the one to sample from."""

    def __init__(self, model: EDMConfig, train: PretrainConfig) -> None:
        super().__init__()
        self.save_hyperparameters({"model": asdict(model), "train": asdict(train)})
        self.config, self.model_config = train, model
        self.network = EDMNetwork(model)
        self.averaged = AveragedModel(self.network, multi_avg_fn=partial(move_average, train.ema_decay))

    def loss(self, network: EDMNetwork, batch: MoleculeBatch, purpose: str) -> Tensor:
        """Mean loss of a batch; its time steps and noise depend on (seed, batch.step, purpose) alone."""
        rng = generator(self.device, self.config.seed, batch.step, purpose)
        latents = encode(batch.numbers, batch.positions, batch.mask, self.model_config)
        steps = torch.randint(
            self.model_config.diffusion_steps + 1, latents.shape[:1], generator=rng, device=self.device
        )
        noise = project(torch.randn(latents.shape, generator=rng, device=self.device), batch.mask)
        return denoising_loss(network, latents, batch.mask, steps, noise).mean()

    def on_train_start(self) -> None:
        """Follow this run's schedule, not that of the checkpoint it continues (Lightning)."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        follow(scheduler)

    def training_step(self, batch: MoleculeBatch, batch_idx: int) -> Tensor:
        """Loss of one batch (Lightning)."""
        loss = self.loss(self.network, batch, "train")
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.mask))
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Move the averaged weights (Lightning)."""
        self.averaged.update_parameters(self.network)

    def validation_step(self, batch: MoleculeBatch, batch_idx: int) -> None:
        """Loss of the averaged weights on one batch, with noise fixed for all time (Lightning)."""
        assert isinstance(self.averaged.module, EDMNetwork)
        loss = self.loss(self.averaged.module, batch, "validation")
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch.mask))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW; linear warm-up, constant, then cosine to 0 (Lightning)."""
        config = self.config
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay)

        def factor(step: int) -> float:
            left = min(1.0, max(0, config.steps - step) / config.decay_steps)
            return min(1.0, (step + 1) / config.warmup) * 0.5 * (1 - math.cos(math.pi * left))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class MoleculeData(lightning.LightningDataModule):
    """Training stream that continues at the trainer's step, and a fixed validation subset."""

    def __init__(self, train: MoleculeSet, validation: MoleculeSet, config: PretrainConfig, val_batches: int) -> None:
        super().__init__()
        self.train, self.validation, self.config, self.val_batches = train, validation, config, val_batches

    def train_dataloader(self) -> DataLoader[MoleculeBatch]:
        """Batches from the current step on (Lightning)."""
        assert self.trainer is not None
        stream = SizedBatches(self.train, self.config.batch_size, self.config.seed, self.trainer.global_step)
        return DataLoader(stream, batch_size=None)

    def val_dataloader(self) -> DataLoader[MoleculeBatch]:
        """The same batches at each call (Lightning)."""
        stream = iter(SizedBatches(self.validation, self.config.batch_size, self.config.seed))
        return DataLoader(Listed([next(stream) for _ in range(self.val_batches)]), batch_size=None)
