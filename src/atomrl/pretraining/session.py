"""The run around a pre-training: options by key=value, one folder, checkpoints, one command to continue."""

from __future__ import annotations

import difflib
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.checks import check
from atomrl.pretraining.saving import LAST, LastCheckpoint, checkpoint_to_continue
from atomrl.training.callbacks import Interruption
from atomrl.training.experiment import choose_device
from atomrl.util.errors import UserError, first_line
from atomrl.util.files import require_writable
from atomrl.util.one_process import alone


@dataclass
class Session:
    """Options of every pre-training.

    Attributes:
        save_path: folder of checkpoints, logs and, at the end, the weights; an unfinished run there is continued.
        init: checkpoint of another run to start from, e.g. for a short decay of the learning rate; null: none. Once the
            run has its own checkpoint in `save_path`, it continues from that one.
        device: `auto`, `cpu` or `cuda`; one GPU at most.
        precision: `32-true`, `bf16-mixed` or, on a GPU, `16-mixed`; see Lightning.
        threads: of torch; null leaves torch's choice.
        val_every: steps between validations.
        val_batches: batches of a validation; 0: none.
        log_every: steps between lines of the log; 0: none.
        checkpoint_minutes: between checkpoints.
        train: how to train.
    """

    save_path: str = "runs/pretrain"
    init: str | None = None
    device: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    val_every: int = 1000
    val_batches: int = 16
    log_every: int = 50
    checkpoint_minutes: float = 3.0
    train: PretrainConfig = field(default_factory=PretrainConfig)

    @property
    def learned_from(self) -> dict[str, object]:
        """Options that a run keeps for all its life, by name: with another value it would be another run."""
        return {"train.seed": self.train.seed}


S = TypeVar("S", bound=Session)


def options_from(kind: type[S], overrides: Sequence[str], command: str) -> S:
    """Typed options from key=value pairs.

    Args:
        kind: a dataclass with defaults.
        overrides: the pairs.
        command: its name, for errors.

    Raises:
        UserError: an unknown option, or a value of the wrong type, out of range or one that an option's own check
            refuses.
    """
    schema = OmegaConf.structured(kind)
    for name in schema:
        if OmegaConf.is_config(schema[name]):
            OmegaConf.set_readonly(schema[name], False)
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{command}: {override!r} is not of the form key=value")
        try:
            schema.merge_with_dotlist([override])
        except YAMLError as error:
            raise UserError(
                f"{command}: {override!r} cannot be read ({first_line(error)}): close what it opens"
            ) from error
        except (ConfigAttributeError, ConfigKeyError) as error:
            known = [entry.name for entry in fields(error.object_type)] if is_dataclass(error.object_type) else []
            near = difflib.get_close_matches(str(error.key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{command}: {override}: {first_line(error)}{hint}") from error
        except (OmegaConfBaseException, ValueError) as error:
            raise UserError(f"{command}: {override}: {first_line(error)}") from error
    try:
        typed = OmegaConf.to_object(schema)
    except (OmegaConfBaseException, ValueError) as error:  # a missing interpolation; what an option's own check refuses
        raise UserError(f"{command}: {first_line(error)}") from error
    assert isinstance(typed, kind)
    check(typed)
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

    Raises:
        UserError: see `checkpoint_to_continue`; or the folder cannot be written.
        KeyboardInterrupt: Ctrl-C; the folder holds the checkpoint that the same command continues from.
        SystemExit: SIGTERM; likewise.
    """
    resume = checkpoint_to_continue(module, session)
    folder = require_writable(Path(session.save_path), f"save_path={session.save_path}")
    require_writable(folder / "log", f"the logs of save_path={session.save_path}")
    interruption, last = Interruption(), LastCheckpoint(folder / LAST, session.checkpoint_minutes, session.learned_from)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    started = time.monotonic()
    with warnings.catch_warnings(), last.listening():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        trainer = _trainer(session, [interruption, *callbacks, last])
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        except (SystemExit, RuntimeError):
            # Lightning turns Ctrl-C into an exit with code 1, or into an error of its own tear-down, and SIGTERM, as of
            # a batch system, into one with code 0.
            if interruption.code is None:
                raise
            raise last.stopped(interruption.code) from None
        last.save(trainer)
    if last.asked:  # after the last step
        raise last.stopped(130)
    hours = (time.monotonic() - started) / 3600
    print(f"{trainer.global_step} steps -> {folder}")
    return {
        "training": {"steps": trainer.global_step, "seed": session.train.seed, "hours_of_last_session": hours},
    }


def _trainer(session: Session, callbacks: list[Callback]) -> lightning.Trainer:
    """Lightning's, on one device."""
    return lightning.Trainer(
        accelerator="gpu" if choose_device(session.device).type == "cuda" else "cpu",
        devices=1,
        max_steps=session.train.steps,
        default_root_dir=session.save_path,
        precision=session.precision,  # type: ignore[arg-type]  # checked
        logger=CSVLogger(session.save_path, name="log"),
        gradient_clip_val=session.train.max_grad_norm,
        val_check_interval=session.val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=session.log_every,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        plugins=[alone()],
    )
