"""`atomrl pretrain edm`: train a backbone on QM9 or on the user's own molecules; writes weights with their card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import BeforeValidator, Field, model_validator

from atomrl.checkpoints.backbone import Backbone, load_backbone, save_backbone
from atomrl.config.switches import Switch
from atomrl.core.conditioning import PropertyConditioning
from atomrl.data.batches import MoleculeBatch, SizedBatches
from atomrl.data.qm9 import ATOMIC_NUMBERS, MoleculeSet, load_qm9, size_histogram, split
from atomrl.data.qm9_properties import check_names, distributions, with_properties
from atomrl.data.sized import full_batches
from atomrl.evaluation.evaluate import SamplePlan, sample
from atomrl.evaluation.monitor import MoleculeMonitor
from atomrl.networks.edm import EDMConfig
from atomrl.pretraining.base import StreamData
from atomrl.pretraining.edm import PretrainEDM
from atomrl.pretraining.own_data import TrainingMolecules, fitting_model, own_data, require_judged, write_known
from atomrl.pretraining.session import Session, begin, fit, options_from
from atomrl.util.options import BelowOne, Count, CountOrNone, Whole, contradiction

QM9 = "qm9"

LOOK = 100
"""T of the samples that a run looks at; the steps of its noise schedule, if these are fewer."""


class Shape(EDMConfig):
    """Shape of a network that is trained from random numbers."""

    elements: tuple[str, ...] = ()
    """Elements of the one-hot columns, symbols in the order of the columns; they must include those of the data; []:
    those of the data, by atomic number."""
    unnamed_elements: ClassVar[bool] = True


def _listed(value: object) -> object:
    """One name stands for a list of it."""
    return [value] if isinstance(value, str) else value


OWN_DATA = Switch(("data",), lambda data: data != QM9, "data=my.sdf")
"""What splits molecules is read of the user's own."""


class PretrainRun(Session):
    """Options of `atomrl pretrain edm`, given as key=value; see `Session` for those of every pre-training."""

    switches: ClassVar = (("held_out", OWN_DATA), ("split_seed", OWN_DATA))
    save_path: str = "runs/pretrain_edm"
    data: str = QM9
    """Molecules to learn from: `qm9`, or your own: a file .sdf, .mol, .extxyz, .xyz, .npz or .npy (GEOM-Drugs), or a
    folder of files."""
    held_out: BelowOne = 0.1
    """Share of your own molecules that is held out for validation; QM9 has a split of its own."""
    split_seed: Annotated[Whole, Field(ge=0)] = 0
    """Seed that chooses which of your own molecules are held out."""
    backbone: str | None = None
    """Backbone that is trained further: a shipped name, a folder or a checkpoint; its shape and elements stay; null:
    none, the network starts from random numbers."""
    context: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    """Properties of QM9 that the network is conditioned on, e.g. `alpha`; []: none. In a backbone that is not
    conditional their columns start at 0, so that they change nothing at first."""
    half: Literal["first", "second"] | None = None
    """Half of QM9's training molecules to learn from, 50,000; a network that learns from the other half can then judge;
    null: all."""
    quality_every: CountOrNone = 5000
    """Optimizer steps between looks at samples, whose stability is logged; 0: never."""
    quality_samples: Count = 64
    """Molecules of a look at samples, drawn with the averaged weights at T = 100, or model.diffusion_steps if fewer."""
    model: Shape = Shape(hidden=192, edge_hidden=64, layers=6)
    """Shape of the network."""

    @property
    def learned_from(self) -> dict[str, object]:
        """See `Session.learned_from`."""
        own = {} if self.data == QM9 else {"held_out": self.held_out, "split_seed": self.split_seed}
        asked = {"context": self.context, "half": self.half}
        return {**super().learned_from, "data": self.data, "backbone": self.backbone, **asked, **own}

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        """Raise UserError for properties and halves of another set than QM9."""
        if self.data != QM9 and (self.context or self.half):
            raise contradiction(
                f"{{at}}data={self.data}: {{at}}context and {{at}}half are of QM9's molecules; leave them out"
            )
        return self


class SampleQuality(Callback):
    """Logs the stability of a few molecules that the averaged weights draw."""

    def __init__(
        self, sizes: dict[int, int], every: int, samples: int, conditioning: PropertyConditioning | None = None
    ) -> None:
        self.sizes, self.every, self.samples, self.conditioning = sizes, every, samples, conditioning

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        """Every so many steps (Lightning)."""
        if not self.every or trainer.global_step % self.every:
            return
        assert isinstance(pl_module, PretrainEDM)
        with torch.autocast(pl_module.device.type, enabled=False):
            plan = SamplePlan(self.samples, min(LOOK, pl_module.model_config.diffusion_steps), seed=1)
            backbone = Backbone(pl_module.average, self.sizes, "training", self.conditioning)
            drawn = sample(backbone, plan, pl_module.device, "quality")
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
    data = _qm9(options) if options.data == QM9 else own_data(Path(options.data), options.held_out, options.split_seed)
    model = fitting_model(options.model, data, start, PretrainRun().model, options.context)
    if options.quality_every:
        require_judged(model.elements)
    parts = data.parts
    full_batches(len(parts["train"]), train.batch_size)
    sizes = size_histogram(parts["train"])
    conditioning = _conditioning(options, parts["train"], start)
    begin(options)
    module = PretrainEDM(model, train, conditioning)
    if start is not None:
        module.start_from(start.network)
    held_out = _validation(parts["validation"], options)
    stream = StreamData(partial(SizedBatches, parts["train"], train.batch_size, train.seed), held_out)
    quality = SampleQuality(sizes, options.quality_every, options.quality_samples, conditioning)
    card = fit(module, stream, options, [quality], parts["train"].fingerprint)
    half = {} if options.half is None else {"data": {"from": "QM9", "half": options.half}}
    card |= data.card | half | ({} if start is None else {"started_from": start.origin})
    save_backbone(folder, module.average, sizes, card, conditioning)
    write_known(folder, data)
    return folder


def _qm9(options: PretrainRun) -> TrainingMolecules:
    """QM9, or a half of it, with its own split and the properties that the network is conditioned on."""
    check_names(options.context, "context")
    parts = split(with_properties(load_qm9(), options.context))
    return TrainingMolecules({**parts, "train": parts[options.half or "train"]}, tuple(ATOMIC_NUMBERS), "QM9")


def _conditioning(options: PretrainRun, molecules: MoleculeSet, start: Backbone | None) -> PropertyConditioning | None:
    """How the properties of the training molecules are distributed; scaled as for the backbone, if that knows them."""
    if not options.context:
        return None
    known = distributions(molecules)
    before = {} if start is None or start.conditioning is None else start.conditioning.known
    scaled = {name: replace(known[name], mean=found.mean, mad=found.mad) for name, found in before.items()}
    return PropertyConditioning(tuple(options.context), {**known, **scaled})


def _validation(molecules: MoleculeSet, options: PretrainRun) -> list[MoleculeBatch]:
    """The batches of a validation; a set that is smaller than a batch is one."""
    if not len(molecules):
        return []
    size = min(options.train.batch_size, len(molecules))
    return list(islice(SizedBatches(molecules, size, options.train.seed), options.val_batches))
