"""What every pre-training on crystals shares: where the crystals are, how they stream, how weights are stored."""

from __future__ import annotations

import copy
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import nn

from atomrl.data.crystal_batches import CrystalBatch, SizedCrystalBatches, fixed_batches
from atomrl.data.packed_crystals import SHIPPED, CrystalSplits
from atomrl.networks.crystal_vae import CrystalVAEConfig
from atomrl.pretraining.base import StreamData
from atomrl.pretraining.session import Session
from atomrl.util.errors import UserError
from atomrl.util.options import Count

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

M = TypeVar("M", bound=nn.Module)


class CrystalSession(Session):
    """Options of every pre-training on crystals; see `Session` for those of every pre-training."""

    data: str = SHIPPED
    """Crystals to learn from: `prototypes`, the shipped set, or a folder: one made by `atomrl data prototypes`, or one
    with train.csv and val.csv."""
    store: Literal["float32", "float16", "bfloat16"] = "float32"
    """Data type of the weights on disk, which loading turns into float32 again; the numbers in the card are those of
    the stored weights."""
    card_structures: Count = 1000
    """Validation crystals that are reconstructed and matched for the card."""

    @property
    def learned_from(self) -> dict[str, object]:
        """Options that a run keeps for all its life, by name."""
        return {**super().learned_from, "data": self.data}


def crystal_stream(splits: CrystalSplits, options: CrystalSession) -> StreamData[CrystalBatch]:
    """Training stream and validation batches, both augmented."""
    size, seed = options.train.batch_size, options.train.seed
    validation = fixed_batches(splits.validation, size, seed, options.val_batches)
    return StreamData(partial(SizedCrystalBatches, splits.train, size, seed), validation)


def rounded(network: M, dtype: torch.dtype) -> M:
    """A float32 copy with the numbers that storing as `dtype` leaves."""
    return copy.deepcopy(network).to(dtype).float()


def check_elements(splits: CrystalSplits, config: CrystalVAEConfig) -> None:
    """Raise UserError for crystals with elements that the VAE has no row for.

    Raises:
        UserError: there are some.
    """
    heaviest = max(int(part.numbers.max()) for part in (splits.train, splits.validation))
    if heaviest >= config.elements:
        raise UserError(
            f"the crystals hold the element {heaviest}, the VAE knows those below {config.elements}: "
            f"train one with model.elements={heaviest + 1}"
        )
