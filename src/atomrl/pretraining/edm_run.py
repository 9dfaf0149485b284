"""`atomrl pretrain edm`: train a backbone on QM9, resumable, and write weights with their card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from atomrl.checkpoints.backbone import Backbone, save_backbone
from atomrl.data.batches import SizedBatches
from atomrl.data.qm9 import ATOMIC_NUMBERS, load_qm9, size_histogram, split
from atomrl.data.sized import full_batches
from atomrl.evaluation.evaluate import SamplePlan, sample
from atomrl.evaluation.monitor import MoleculeMonitor
from atomrl.networks.edm import EDMConfig
from atomrl.pretraining.base import StreamData
from atomrl.pretraining.edm import PretrainEDM
from atomrl.pretraining.session import Session, begin, fit, options_from
from atomrl.util.errors import UserError
from atomrl.util.options import Count, CountOrNone


class PretrainRun(Session):
    """Options of `atomrl pretrain edm`, given as key=value; see `Session` for those of every pre-training."""

    save_path: str = "runs/pretrain_edm"
    quality_every: CountOrNone = 5000
    """Steps between looks at samples; 0: never."""
    quality_samples: Count = 64
    """Molecules of a look, at T = 100, with the averaged weights."""
    model: EDMConfig = EDMConfig(hidden=192, edge_hidden=64, layers=6)
    """Shape of the network."""


class SampleQuality(Callback):
    """Logs the stability of a few molecules that the averaged weights draw."""

    def __init__(self, sizes: dict[int, int], every: int, samples: int) -> None:
        self.sizes, self.every, self.samples = sizes, every, samples

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        """Every so many steps (Lightning)."""
        if not self.every or trainer.global_step % self.every:
            return
        assert isinstance(pl_module, PretrainEDM)
        with torch.autocast(pl_module.device.type, enabled=False):
            plan = SamplePlan(self.samples, 100, seed=1)
            drawn = sample(Backbone(pl_module.average, self.sizes, "training"), plan, pl_module.device, "quality")
        measured = MoleculeMonitor(rdkit=False).measure(drawn)
        shown = {name: measured[name] for name in ("atom_stability", "molecule_stability")}
        for logger in trainer.loggers:  # not pl_module.log, which is heard only every log_every_n_steps
            logger.log_metrics(shown, step=trainer.global_step - 1)  # of the batch that just ended, as Lightning counts


def pretrain_edm(overrides: Sequence[str]) -> Path:
    """Train to the end, or continue; the folder then holds model.safetensors and model.json.

    Raises:
        UserError: an unknown option or one that cannot be, or QM9 is not installed.
    """
    options = options_from(PretrainRun, overrides, "pretrain edm")
    _check_model(options.model)
    train, folder = options.train, Path(options.save_path)
    parts = split(load_qm9())
    full_batches(len(parts["train"]), train.batch_size)
    sizes = size_histogram(parts["train"])
    begin(options)
    module = PretrainEDM(options.model, train)
    validation = islice(SizedBatches(parts["validation"], train.batch_size, train.seed), options.val_batches)
    data = StreamData(partial(SizedBatches, parts["train"], train.batch_size, train.seed), list(validation))
    card = fit(module, data, options, [SampleQuality(sizes, options.quality_every, options.quality_samples)])
    save_backbone(folder, module.average, sizes, card)
    return folder


def _check_model(config: EDMConfig) -> None:
    """Raise UserError for a network that QM9 does not fit."""
    if missing := [symbol for symbol in ATOMIC_NUMBERS if symbol not in config.elements]:
        raise UserError(f"model.elements={list(config.elements)}: QM9 also holds {', '.join(missing)}; add them")
    if config.context_features:
        raise UserError(
            f"model.context_features={config.context_features}: QM9's molecules come without a condition; leave it at 0"
        )
