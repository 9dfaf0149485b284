"""`atomrl pretrain edm`: train a backbone on QM9 or on the user's own molecules; writes weights with their card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import Field

from atomrl.checkpoints.backbone import Backbone, load_backbone, save_backbone
from atomrl.data.batches import MoleculeBatch, SizedBatches
from atomrl.data.qm9 import ATOMIC_NUMBERS, MoleculeSet, load_qm9, size_histogram, split
from atomrl.data.sized import full_batches
from atomrl.evaluation.evaluate import SamplePlan, sample
from atomrl.evaluation.monitor import MoleculeMonitor
from atomrl.networks.edm import EDMConfig
from atomrl.pretraining.base import StreamData
from atomrl.pretraining.edm import PretrainEDM
from atomrl.pretraining.own_data import TrainingMolecules, fitting_model, own_data, require_judged, write_known
from atomrl.pretraining.session import Session, begin, fit, options_from
from atomrl.util.options import BelowOne, Count, CountOrNone, Whole

QM9 = "qm9"


class Shape(EDMConfig):
    """Shape of a network that is trained from random numbers."""

    elements: tuple[str, ...] = ()
    """Symbols in the order of the one-hot columns; []: those of the data, by atomic number."""
    unnamed_elements: ClassVar[bool] = True


class PretrainRun(Session):
    """Options of `atomrl pretrain edm`, given as key=value; see `Session` for those of every pre-training."""

    save_path: str = "runs/pretrain_edm"
    data: str = QM9
    """`qm9`, or molecules of your own: a file .sdf, .mol, .extxyz, .xyz, .npz or .npy (GEOM-Drugs), or a folder."""
    held_out: BelowOne = 0.1
    """Share of your own molecules that validation takes; QM9 has a split of its own."""
    split_seed: Annotated[Whole, Field(ge=0)] = 0
    """Of the split of your own molecules."""
    backbone: str | None = None
    """Backbone that is trained further: a shipped name, a folder or a checkpoint; its shape and elements stay. null:
    from random numbers."""
    quality_every: CountOrNone = 5000
    """Steps between looks at samples; 0: never."""
    quality_samples: Count = 64
    """Molecules of a look, at T = 100, with the averaged weights."""
    model: Shape = Shape(hidden=192, edge_hidden=64, layers=6)
    """Shape of the network."""

    @property
    def learned_from(self) -> dict[str, object]:
        """See `Session.learned_from`."""
        own = {} if self.data == QM9 else {"held_out": self.held_out, "split_seed": self.split_seed}
        return {**super().learned_from, "data": self.data, "backbone": self.backbone, **own}


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
        UserError: an unknown option or one that cannot be; no QM9, no molecules or no backbone; or molecules that the
            network does not fit.
    """
    options = options_from(PretrainRun, overrides, "pretrain edm")
    train, folder = options.train, Path(options.save_path)
    start = None if options.backbone is None else load_backbone(options.backbone)
    data = _qm9() if options.data == QM9 else own_data(Path(options.data), options.held_out, options.split_seed)
    model = fitting_model(options.model, data, start, PretrainRun().model)
    if options.quality_every:
        require_judged(model.elements)
    parts = data.parts
    full_batches(len(parts["train"]), train.batch_size)
    sizes = size_histogram(parts["train"])
    begin(options)
    module = PretrainEDM(model, train)
    if start is not None:
        module.start_from(start.network)
    held_out = _validation(parts["validation"], options)
    stream = StreamData(partial(SizedBatches, parts["train"], train.batch_size, train.seed), held_out)
    card = fit(module, stream, options, [SampleQuality(sizes, options.quality_every, options.quality_samples)])
    card |= data.card | ({} if start is None else {"started_from": start.origin})
    save_backbone(folder, module.average, sizes, card)
    write_known(folder, data)
    return folder


def _qm9() -> TrainingMolecules:
    """QM9, with its own split."""
    return TrainingMolecules(split(load_qm9()), tuple(ATOMIC_NUMBERS), "QM9")


def _validation(molecules: MoleculeSet, options: PretrainRun) -> list[MoleculeBatch]:
    """The batches of a validation; a set that is smaller than a batch is one."""
    if not len(molecules):
        return []
    size = min(options.train.batch_size, len(molecules))
    return list(islice(SizedBatches(molecules, size, options.train.seed), options.val_batches))
