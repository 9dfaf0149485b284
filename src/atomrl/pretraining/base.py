"""What pre-training has in common for all networks: optimizer, schedule, averaged weights, data that can continue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Generic, Protocol, TypeVar, cast

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset

from atomrl.core.averaging import move_average
from atomrl.core.schedules import adopt, tail_factor
from atomrl.data.batches import Listed
from atomrl.util.errors import UserError
from atomrl.util.option_words import Says
from atomrl.util.options import Count, CountOrNone, Fraction, Number, Options, Positive, Rate, Whole


class PretrainConfig(Options):
    """How to train."""

    steps: Count = 100_000
    """Optimizer steps of the whole training."""
    decay_steps: CountOrNone = 10_000
    """The last steps, over which the learning rate falls to 0; before them it is constant. A run with fewer steps falls
    from its start. 0: the rate stays constant to the end; that suits a run whose length is not known yet, since a short
    decay from any of its checkpoints (`init`) gives weights to use."""
    batch_size: Count = 64
    """Molecules or crystals per optimizer step."""
    lr: Rate = 1e-3
    """Peak learning rate of AdamW."""
    warmup: CountOrNone = 500
    """The first steps, over which the learning rate rises linearly; 0: none."""
    weight_decay: Annotated[Number, Field(ge=0.0)] = 1e-4
    """Weight decay of AdamW."""
    max_grad_norm: Positive = 1.0
    """The gradient is clipped to this norm."""
    ema_decay: Fraction = 0.9995
    """Decay per step of the averaged weights, which are those that are kept."""
    seed: Annotated[Whole, Field(ge=0, lt=2**64), Says("must lie between 0 and 2^64 - 1")] = 0
    """Seed of batches, noise and first weights."""


class Batch(Protocol):
    """What pre-training must know of a batch."""

    @property
    def mask(self) -> Tensor:
        """Real atoms, (B, N)."""
        ...

    @property
    def step(self) -> int:
        """Global number of the batch, the key of its randomness."""
        ...


B = TypeVar("B", bound=Batch)
M = TypeVar("M", bound=nn.Module)


class Pretraining(lightning.LightningModule, ABC, Generic[M, B]):
    """Trains a network on `losses`; `averaged` holds its exponential moving average, the one to use afterwards."""

    def __init__(self, network: M, train: PretrainConfig) -> None:
        super().__init__()
        self.config = train
        self.network = network
        self.averaged = AveragedModel(network, multi_avg_fn=partial(move_average, train.ema_decay))

    @abstractmethod
    def losses(self, network: M, batch: B, purpose: str) -> dict[str, Tensor]:
        """Means over a batch by name, `loss` among them; random draws depend on (seed, batch.step, purpose) alone."""

    @property
    def average(self) -> M:
        """The network with the averaged weights."""
        return cast("M", self.averaged.module)

    def on_train_start(self) -> None:
        """Go on with this run's rate, betas, decay and schedule, not those of the checkpoint (Lightning)."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        adopt(scheduler, self._optimization())

    def training_step(self, batch: B, batch_idx: int) -> Tensor:
        """Loss of one batch; all its terms are logged (Lightning).

        Raises:
            UserError: it is not finite; no weight has taken it in.
        """
        terms = self.losses(self.network, batch, "train")
        if not torch.isfinite(terms["loss"]):  # a GPU is waited for, so that the optimizer never takes it in
            values = ", ".join(f"{name} {value.item():.3g}" for name, value in terms.items())
            raise UserError(
                f"step {batch.step}: the loss is not finite ({values}): lower train.lr={self.config.lr} or"
                f" train.max_grad_norm={self.config.max_grad_norm} and give the command again; it continues from the"
                " last checkpoint before this step, or starts anew if there is none"
            )
        self.log_dict({name: value.detach() for name, value in terms.items()}, batch_size=len(batch.mask))
        return terms["loss"]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Move the averaged weights with the others, before any callback saves both (Lightning)."""
        super().optimizer_step(*args, **kwargs)
        self.averaged.update_parameters(self.network)

    def validation_step(self, batch: B, batch_idx: int) -> None:
        """Loss of the averaged weights on one batch, with noise fixed for all time (Lightning)."""
        terms = self.losses(self.average, batch, "validation")
        self.log_dict({f"val_{name}": value for name, value in terms.items()}, batch_size=len(batch.mask))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW; linear warm-up, constant, then cosine to 0 (Lightning)."""
        scheduler = self._optimization()
        return {
            "optimizer": scheduler.optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _optimization(self) -> LambdaLR:
        """The schedule, and in it the optimizer, as at the start of a run."""
        config = self.config
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
        factor = partial(tail_factor, warmup=config.warmup, total=config.steps, decay=config.decay_steps)
        return LambdaLR(optimizer, factor)


class StreamData(lightning.LightningDataModule, Generic[B]):
    """Training stream that continues at the trainer's step, and the same validation batches each time.

    Args:
        stream: number of the first batch -> the stream from there on.
        validation: batches.
    """

    def __init__(self, stream: Callable[[int], IterableDataset[B]], validation: Sequence[B]) -> None:
        super().__init__()
        self.stream, self.validation = stream, validation

    def train_dataloader(self) -> DataLoader[B]:
        """Batches from the current step on (Lightning)."""
        assert self.trainer is not None
        return DataLoader(self.stream(self.trainer.global_step), batch_size=None)

    def val_dataloader(self) -> DataLoader[B]:
        """The validation batches (Lightning)."""
        return DataLoader(Listed(self.validation), batch_size=None)
