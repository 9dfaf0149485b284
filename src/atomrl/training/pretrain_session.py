"""The run around a pre-training: options by key=value, one folder, checkpoints, one command to continue."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomrl.checkpoints.folder import first_line
from atomrl.errors import UserError
from atomrl.training.pretraining import PretrainConfig

LAST = "last.ckpt"


@dataclass
class Session:
    """Options of every pre-training.

    Attributes:
        save_path: folder of checkpoints, logs and, at the end, the weights; an unfinished run there is continued.
        init: checkpoint of another run to continue from, e.g. for a short decay of the learning rate; null: none.
        precision: Lightning's, e.g. `32-true` or `bf16-mixed`.
        threads: of torch; null leaves torch's choice.
        val_every: steps between validations.
        val_batches: batches of a validation.
        log_every: steps between lines of the log.
        checkpoint_minutes: between checkpoints.
        train: how to train.
    """

    save_path: str = "runs/pretrain"
    init: str | None = None
    precision: str = "32-true"
    threads: int | None = None
    val_every: int = 1000
    val_batches: int = 16
    log_every: int = 50
    checkpoint_minutes: float = 3.0
    train: PretrainConfig = field(default_factory=PretrainConfig)


S = TypeVar("S", bound=Session)


def options_from(kind: type[S], overrides: Sequence[str], command: str) -> S:
    """Typed options from key=value pairs.

    Args:
        kind: a dataclass with defaults.
        overrides: the pairs.
        command: its name, for errors.

    Raises:
        UserError: an unknown option, or a value of the wrong type or one that an option's own check refuses.
    """
    schema = OmegaConf.structured(kind)
    for name in schema:
        if OmegaConf.is_config(schema[name]):
            OmegaConf.set_readonly(schema[name], False)
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.from_dotlist(list(overrides))))
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{command}: {first_line(error)}") from error
    assert isinstance(typed, kind)
    return typed


def begin(session: Session) -> None:
    """Threads and seed; call before the network is made."""
    if session.threads is not None:
        torch.set_num_threads(session.threads)
    torch.manual_seed(session.train.seed)


def fit(
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
    session: Session,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train to the end, or continue what is in the folder.

    Returns:
        The card's entries about the training.
    """
    folder = Path(session.save_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    trainer = lightning.Trainer(
        max_steps=session.train.steps,
        default_root_dir=folder,
        precision=session.precision,  # type: ignore[arg-type]  # Lightning checks it
        logger=CSVLogger(folder, name="log"),
        gradient_clip_val=session.train.max_grad_norm,
        val_check_interval=session.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=session.log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(
                folder, save_last=True, train_time_interval=timedelta(minutes=session.checkpoint_minutes), save_top_k=1
            ),
            *callbacks,
        ],
    )
    last = folder / LAST
    resume = str(last) if last.exists() else session.init
    started = time.monotonic()
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(last)
    hours = (time.monotonic() - started) / 3600
    print(f"{trainer.global_step} steps -> {folder}")
    return {
        "training": {"steps": trainer.global_step, "seed": session.train.seed, "hours_of_last_session": hours},
    }
