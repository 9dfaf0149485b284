"""The run around a pre-training: options by key=value, one folder, checkpoints, one command to continue."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from pydantic import field_validator

from atomrl.config import with_overrides
from atomrl.config.switches import Switch, require_switched_on
from atomrl.pretraining.announcements import StepProgress
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.saving import LAST, LastCheckpoint, checkpoint_to_continue
from atomrl.training.callbacks import Interruption
from atomrl.util.device import choose_device, use_threads
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable
from atomrl.util.option_words import Unit
from atomrl.util.options import Count, CountOrNone, Options, Positive, Threads, contradiction
from atomrl.util.processes import one_process

CONTENT, VALUES, SHOWN = "content of data (SHA-256)", "values of the properties in data (SHA-256)", 12
"""What messages call the structures of the training data and what is learned of them, and how many digits of a hash
they show."""


class Session(Options):
    """Options of every pre-training."""

    switches: ClassVar[Sequence[tuple[str, Switch]]] = ()
    """What is read only as another key stands; see `config.switches`."""

    save_path: str = "runs/pretrain"
    """Folder for checkpoints, log and, at the end, the weights; an unfinished run there is continued."""
    init: str | None = None
    """Checkpoint of another run to continue from, e.g. for a short decay of the learning rate; null: none. Once the run
    has a checkpoint of its own in `save_path`, it continues from that one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where torch computes: `auto` takes a GPU where there is one; one GPU at most."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's precision. `32-true`: float32; `bf16-mixed` and `16-mixed`: mixed precision with bfloat16 or float16;
    `16-mixed` needs a GPU."""
    threads: Threads | None = None
    """Number of torch's threads; null: torch's choice."""
    val_every: Count = 1000
    """Optimizer steps between validations."""
    val_batches: CountOrNone = 16
    """Batches of a validation; 0: no validation."""
    log_every: CountOrNone = 50
    """Optimizer steps between lines of the log; 0: none."""
    checkpoint_minutes: Annotated[Positive, Unit("min")] = 3.0
    """Minutes between checkpoints, and between printed lines where no terminal shows a progress bar."""
    train: PretrainConfig = PretrainConfig()
    """How to train."""

    @field_validator("save_path")
    @classmethod
    def _check_place(cls, value: str) -> str:
        """Raise UserError for no folder, as an empty variable of a script makes one: it would be the current one."""
        if not value:
            raise contradiction("{at}save_path= names no folder: give one, or leave it out")
        return value

    @property
    def learned_from(self) -> dict[str, object]:
        """Options that a run keeps for all its life, by name: with another value it would be another run."""
        return {"train.seed": self.train.seed}


S = TypeVar("S", bound=Session)


def options_from(kind: type[S], overrides: Sequence[str], command: str) -> S:
    """Typed options from key=value pairs.

    Args:
        kind: options with defaults.
        overrides: the pairs, which mean what they mean in `atomrl train`.
        command: its name, for errors.

    Raises:
        UserError: an unknown option, a value that cannot be, options that contradict each other, one that nothing reads
            as the others stand, or a device that is not there.
    """
    try:
        options = with_overrides(kind(), overrides)
        require_switched_on(options, overrides, kind.switches)
    except UserError as error:
        raise UserError(f"{command}: {error}") from error
    check_device(options)
    return options


def check_device(session: Session) -> None:
    """Raise UserError for a device that is not there, and a precision that it has not.

    Raises:
        UserError: as said.
    """
    if choose_device(session.device).type == "cpu" and session.precision == "16-mixed":
        raise UserError("precision=16-mixed needs a GPU: use bf16-mixed, or 32-true")


def begin(session: Session) -> None:
    """Threads and seed; call before the network is made."""
    use_threads(session.threads)
    torch.manual_seed(session.train.seed)


@one_process()
def fit(
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
    session: Session,
    callbacks: Sequence[Callback] = (),
    content: str | None = None,
    values: str | None = None,
) -> dict[str, Any]:
    """Train to the end, or continue what is in the folder.

    Args:
        module: what is trained.
        data: what it learns from.
        session: the run's options.
        callbacks: further ones.
        content: hash of the training data, which a run keeps for all its life; None: it never changes.
        values: the same of the properties that are learned from; None: there are none, or they never change.

    Returns:
        The card's entries about the training.

    Raises:
        UserError: see `checkpoint_to_continue`; or the folder cannot be written.
        KeyboardInterrupt: Ctrl-C; the folder holds the checkpoint that the same command continues from.
        SystemExit: SIGTERM; likewise.
    """
    hashes = {name: found[:SHOWN] for name, found in ((CONTENT, content), (VALUES, values)) if found is not None}
    learned_from = session.learned_from | hashes
    resume = checkpoint_to_continue(module, session, learned_from)
    folder = require_writable(Path(session.save_path), f"save_path={session.save_path}")
    require_writable(folder / "log", f"the logs of save_path={session.save_path}")
    interruption, last = Interruption(), LastCheckpoint(folder / LAST, session.checkpoint_minutes, learned_from)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    started = time.monotonic()
    with warnings.catch_warnings(), last.listening():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        progress = StepProgress(session.checkpoint_minutes, session.log_every)
        trainer = _trainer(session, [interruption, *callbacks, last, progress])
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
        precision=session.precision,
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
        plugins=[LightningEnvironment()],  # not what it makes of Slurm's variables, see `processes`
    )
