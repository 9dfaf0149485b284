"""The checkpoint of a pre-training: written every few minutes and at a stop, checked before a run continues from it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from atomrl.checkpoints.folder import CARD, CONFIG, fill
from atomrl.checkpoints.torch_file import read_torch
from atomrl.training.callbacks import save
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from atomrl.pretraining.session import Session

LAST = "last.ckpt"
ENTRIES = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"}
"""What Lightning continues from."""
LEARNED_FROM = "learned_from"
"""Entry of a checkpoint: what its run learns from, by option."""
OF_THE_MODEL = ("context", "lora")
"""Those of them that say what the weights mean, so that `init` needs them, too."""


class LastCheckpoint(Callback):
    """Writes one checkpoint again and again, always at the end of a step.

    In the middle of a step weights, optimizer and averaged weights disagree, and a run that continues from there would
    not be the one that was stopped. Hence Ctrl-C, too, waits for the step to end; a second one does not.

    Args:
        path: of the checkpoint.
        minutes: between two of them.
        learned_from: `Session.learned_from`, and the hash of the data, which the checkpoint holds too.

    Attributes:
        asked: Ctrl-C came.
    """

    def __init__(self, path: Path, minutes: float, learned_from: Mapping[str, object]) -> None:
        self.path, self.seconds, self.learned_from = path, 60 * minutes, dict(learned_from)
        self.asked = False
        self._saved = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C waits for the end of a step in here, unless somebody else deals with it or ignores it."""
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Save where it is time to, stop where Ctrl-C came; Lightning itself stops after SIGTERM (Lightning)."""
        if self.asked or trainer.received_sigterm or time.monotonic() - self._saved >= self.seconds:
            self.save(trainer)
        if self.asked:
            raise KeyboardInterrupt

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say what is learned from (Lightning)."""
        checkpoint[LEARNED_FROM] = self.learned_from

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the checkpoint as a whole.

        Raises:
            UserError: it cannot be written.
        """
        save(trainer, self.path)
        self._saved = time.monotonic()

    def stopped(self, code: int) -> BaseException:
        """Says how to go on after a signal.

        Args:
            code: exit code, 130 after Ctrl-C, 143 after SIGTERM.

        Returns:
            What to raise.
        """
        how = "; continue with" if self.path.is_file() else " before the first checkpoint; start again with"
        print(f"\nstopped{how} the same command: save_path={self.path.parent}", flush=True)
        return KeyboardInterrupt() if code == 130 else SystemExit(code)

    def _ask(self, *_: object) -> None:
        """Ctrl-C (a signal handler)."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def checkpoint_to_continue(
    module: lightning.LightningModule, session: Session, learned_from: Mapping[str, object]
) -> Path | None:
    """The folder's own checkpoint, else `init`, else none; read here, since Lightning's errors are tracebacks.

    Args:
        module: what is trained; it takes the weights.
        session: the run's options.
        learned_from: of this run, as its checkpoint will say.

    Raises:
        UserError: it is missing or damaged, of another model, VAE or of other properties, or nothing is left to do from
            it; the folder's own learned from something else than the options say; or it has none, but a model.
    """
    path = own = Path(session.save_path) / LAST
    hint = f"give the options that the run in {own.parent} began with, or another save_path"
    if not own.exists():
        _require_no_model(own.parent)
        if session.init is None:
            return None
        path = Path(session.init)
        hint = f"init takes the {LAST} of a pre-training of the same model"
        if not path.is_file():
            raise UserError(f"init={path}: no such file; give the {LAST} of another pre-training, or leave it out")
    found = read_torch(path)
    if not isinstance(found, dict) or not found.keys() >= ENTRIES:
        raise UserError(f"{path} is not the checkpoint of a pre-training; {hint}")
    began = found.get(LEARNED_FROM, {})
    if path is not own:
        began = {key: began[key] for key in OF_THE_MODEL if key in began}
    for key, now in learned_from.items():
        if (before := began.get(key, now)) != now:
            raise UserError(f"{path} began with {key}={before}, not {key}={now}; {hint}")
    frozen = {name: weight.clone() for name, weight in module.named_parameters() if not weight.requires_grad}
    try:
        fill(module, found["state_dict"], str(path))
    except UserError as error:
        raise UserError(f"{error}; {hint}") from error
    others = [name for name, weight in frozen.items() if not torch.equal(module.get_parameter(name), weight)]
    if others:  # beside adapters a backbone's own weights are frozen, too
        what = "VAE" if others[0].startswith("vae.") else "backbone"
        raise UserError(f"{path} was trained on another {what}; {hint}")
    learned = found.get("hyper_parameters", {})
    _require_same_network(path, learned, module.hparams, hint)
    if "conditions" in learned:  # not in checkpoints of earlier versions
        _require_same_conditions(path, learned["conditions"], module.hparams["conditions"], path is own)
    if path is not own and found["global_step"] >= session.train.steps:
        raise UserError(
            f"init={path} is at step {found['global_step']}, and train.steps={session.train.steps} counts those too: "
            "raise it"
        )
    return path


def _require_no_model(folder: Path) -> None:
    """Raise UserError for a folder without a checkpoint whose model the run's own would be written over.

    Raises:
        UserError: as said.
    """
    if any((folder / name).exists() for name in (CARD, CONFIG)):
        raise UserError(
            f"save_path={folder} holds a model and no {LAST} to continue from, and it would be overwritten: "
            "give another folder"
        )


def _require_same_network(path: Path, learned: Mapping[str, Any], own: Mapping[str, Any], hint: str) -> None:
    """Raise UserError for a network that no tensor tells from that of a checkpoint, e.g. by the heads of its attention.

    Args:
        path: of the checkpoint.
        learned: what it says of its network.
        own: the same of the network that shall go on.
        hint: what to do.

    Raises:
        UserError: as said.
    """
    for name, now in own["model"].items():
        if (before := learned.get("model", {}).get(name, now)) != now:
            raise UserError(f"{path} began with model.{name}={before}, not model.{name}={now}; {hint}")
    targets, wanted = learned.get("targets"), own.get("targets")
    if targets != wanted:
        raise UserError(f"{path} predicts {targets}, not targets={wanted}; {hint}")


def _require_same_conditions(
    path: Path, before: Sequence[Sequence[str]], now: Sequence[Sequence[str]], own: bool
) -> None:
    """Raise UserError for conditions of another scale or of other classes than those that a checkpoint learned.

    Args:
        path: of the checkpoint.
        before: of each condition that it learned the name, the mean, the standard deviation and the classes.
        now: of the same conditions in the data as it is.
        own: whether it is the run's own, and not `init`.

    Raises:
        UserError: as said.
    """
    if changed := [one[0] for old, one in zip(before, now, strict=True) if old != one]:
        remedy = (
            "have changed with the data since; put it back, or give another save_path"
            if own
            else "are others here; give the same data and order, or train its model further by backbone"
        )
        raise UserError(
            f"{path} began with other values of {', '.join(changed)} in the training crystals: their mean and standard "
            f"deviation, or their classes, {remedy}"
        )
