"""`atomrl pretrain edm`: train a backbone on QM9, resumable, and write weights with their card."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomrl.checkpoints.backbone import Backbone, save_backbone
from atomrl.data.qm9 import load_qm9, size_histogram, split
from atomrl.errors import UserError
from atomrl.evaluation import SamplePlan, sample
from atomrl.metrics.monitor import MoleculeMonitor
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.training.pretrain_edm import MoleculeData, PretrainConfig, PretrainEDM

LAST = "last.ckpt"


@dataclass
class PretrainRun:
    """Options of `atomrl pretrain edm`, given as key=value.

    Attributes:
        save_path: folder of checkpoints, logs and, at the end, the weights; an unfinished run there is continued.
        init: checkpoint of another run to continue from, e.g. for a short decay of the learning rate; null: none.
        precision: Lightning's, e.g. `32-true` or `bf16-mixed`.
        threads: of torch; null leaves torch's choice.
        val_every: steps between validations.
        val_batches: batches of a validation.
        quality_every: steps between looks at samples; 0: never.
        quality_samples: molecules of a look, at T = 100, with the averaged weights.
        checkpoint_minutes: between checkpoints.
        model: shape of the network.
        train: how to train it.
    """

    save_path: str = "runs/pretrain_edm"
    init: str | None = None
    precision: str = "32-true"
    threads: int | None = None
    val_every: int = 1000
    val_batches: int = 16
    quality_every: int = 5000
    quality_samples: int = 64
    checkpoint_minutes: float = 3.0
    model: EDMConfig = field(default_factory=lambda: EDMConfig(hidden=192, edge_hidden=64, layers=6))
    train: PretrainConfig = field(default_factory=PretrainConfig)


class SampleQuality(Callback):
    """Logs the stability of a few molecules that the averaged weights draw."""

    def __init__(self, sizes: dict[int, int], every: int, samples: int) -> None:
        self.sizes, self.every, self.samples = sizes, every, samples

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        """Every so many steps (Lightning)."""
        if not self.every or trainer.global_step % self.every:
            return
        assert isinstance(pl_module, PretrainEDM)
        network = pl_module.averaged.module
        assert isinstance(network, EDMNetwork)
        with torch.autocast(pl_module.device.type, enabled=False):
            plan = SamplePlan(self.samples, 100, seed=1)
            drawn = sample(Backbone(network, self.sizes, "training"), plan, pl_module.device, "quality")
        measured = MoleculeMonitor(rdkit=False).measure(drawn)
        for name in ("atom_stability", "molecule_stability"):
            pl_module.log(name, measured[name], batch_size=1)


def pretrain_edm(overrides: Sequence[str]) -> Path:
    """Train to the end, or continue; the folder then holds model.safetensors and model.json.

    Raises:
        UserError: an unknown option, or QM9 is not installed.
    """
    options = _options(overrides)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    folder = Path(options.save_path)
    parts = split(load_qm9())
    sizes = size_histogram(parts["train"])
    torch.manual_seed(options.train.seed)
    module = PretrainEDM(options.model, options.train)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    trainer = lightning.Trainer(
        max_steps=options.train.steps,
        default_root_dir=folder,
        precision=options.precision,  # type: ignore[arg-type]  # Lightning checks it
        logger=CSVLogger(folder, name="log"),
        gradient_clip_val=options.train.max_grad_norm,
        val_check_interval=options.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(
                folder, save_last=True, train_time_interval=timedelta(minutes=options.checkpoint_minutes), save_top_k=1
            ),
            SampleQuality(sizes, options.quality_every, options.quality_samples),
        ],
    )
    last = folder / LAST
    resume = str(last) if last.exists() else options.init
    started = time.monotonic()
    data = MoleculeData(parts["train"], parts["validation"], options.train, options.val_batches)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(last)
    network = module.averaged.module
    assert isinstance(network, EDMNetwork)
    hours = (time.monotonic() - started) / 3600
    card = {"training": {"steps": trainer.global_step, "seed": options.train.seed, "hours_of_last_session": hours}}
    save_backbone(folder, network, sizes, card)
    print(f"{trainer.global_step} steps -> {folder}")
    return folder


def _options(overrides: Sequence[str]) -> PretrainRun:
    """Typed options from key=value pairs."""
    schema = OmegaConf.structured(PretrainRun)
    for section in (schema.model, schema.train):
        OmegaConf.set_readonly(section, False)
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.from_dotlist(list(overrides))))
    except OmegaConfBaseException as error:
        raise UserError(f"pretrain edm: {str(error).splitlines()[0]}") from error
    assert isinstance(typed, PretrainRun)
    return typed
