"""What every pre-training on crystals shares: where the crystals are, how they stream, how weights are stored."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from atomrl.data.crystal_batches import CrystalBatch, CrystalBatches, fixed_batches
from atomrl.data.packed_crystals import SHIPPED, CrystalSplits
from atomrl.networks.crystal_vae import CrystalVAEConfig
from atomrl.pretraining.base import StreamData
from atomrl.pretraining.session import Session
from atomrl.util.errors import UserError

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

M = TypeVar("M", bound=nn.Module)


@dataclass
class CrystalSession(Session):
    """Options of every pre-training on crystals; see `Session` for those of every pre-training.

    Attributes:
        data: `prototypes`, or a folder with a crystal set or with `train.csv` and `val.csv`.
        store: type of the weights in the folder, `float32`, `float16` or `bfloat16`; the card's numbers are those of
            the stored weights. Loading gives float32 again.
        card_structures: validation crystals that the card's numbers are measured on.
    """

    data: str = SHIPPED
    store: str = "float32"
    card_structures: int = 1000

    @property
    def learned_from(self) -> dict[str, object]:
        """Options that a run keeps for all its life, by name."""
        return {**super().learned_from, "data": self.data}


def crystal_stream(splits: CrystalSplits, options: CrystalSession) -> StreamData[CrystalBatch]:
    """Training stream and validation batches, both augmented."""
    size, seed = options.train.batch_size, options.train.seed
    validation = fixed_batches(splits.validation, size, seed, options.val_batches)
    return StreamData(partial(CrystalBatches, splits.train, size, seed), validation)


def rounded(network: M, dtype: torch.dtype) -> M:
    """A float32 copy with the numbers that storing as `dtype` leaves."""
    return copy.deepcopy(network).to(dtype).float()


def stored_type(name: str) -> torch.dtype:
    """Type of the stored weights.

    Raises:
        UserError: an unknown name.
    """
    if name not in STORED:
        raise UserError(f"store={name}: use one of {', '.join(STORED)}")
    return STORED[name]


def check_elements(splits: CrystalSplits, config: CrystalVAEConfig) -> None:
    """Refuse crystals with elements that the VAE has no row for.

    Raises:
        UserError: there are some.
    """
    heaviest = max(int(part.numbers.max()) for part in (splits.train, splits.validation))
    if heaviest >= config.elements:
        raise UserError(
            f"the crystals hold the element {heaviest}, the VAE knows those below {config.elements}: "
            f"train one with model.elements={heaviest + 1}"
        )
