"""What a run does after each iteration: save, keep the best, stop in time."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from atomrl.checkpoints.lora import plain_weights
from atomrl.checkpoints.named import AVERAGED_WEIGHTS, BEST, LATEST
from atomrl.checkpoints.torch_file import to_bytes
from atomrl.config import Config
from atomrl.config.outputs import VALIDATED
from atomrl.core.collective import Alone, any_rank
from atomrl.core.protocols import Collective
from atomrl.export.exporter import Exporter
from atomrl.training.changed_settings import reward_settings
from atomrl.training.rl_module import RLModule
from atomrl.training.snapshots import Snapshots
from atomrl.training.validation import named
from atomrl.util.errors import RankError, UserError
from atomrl.util.files import whole, write_whole

RAW_REWARD = "raw_reward"
"""Checkpoints that do not say whose value their best is are older than this number."""


def save(trainer: lightning.Trainer, path: Path) -> None:
    """Save a checkpoint in one move."""
    with whole(path) as partial:
        trainer.save_checkpoint(partial)


def save_tensors(path: Path, values: Mapping[str, Any]) -> None:
    """`torch.save` as a whole.

    Raises:
        UserError: it cannot be written.
    """
    write_whole(path, to_bytes(dict(values)))


class Interruption(Callback):
    """Knows whether a signal ended the run: Lightning's own status says so for any exception.

    Several processes get SIGTERM one after the other, and one alone must not leave after an iteration that the others
    go on from. So they ask each other after each one, and all stop.

    Args:
        collective: the processes of the run.

    Attributes:
        code: exit code of a run that Ctrl-C (130) or SIGTERM (143) ended; None for any other end.
    """

    def __init__(self, collective: Collective | None = None) -> None:
        self.code: int | None = None
        self.collective = collective or Alone()
        self._asked = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take SIGTERM from Lightning, which would end this process alone (Lightning); it is given back at the end."""
        if self.collective.size > 1:
            signal.signal(signal.SIGTERM, self._ask)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop all processes if one was asked to (Lightning)."""
        if self.collective.size > 1 and any_rank(self._asked, self.collective):
            self.code = 143
            trainer.should_stop = True

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Look at what ends the run (Lightning)."""
        if isinstance(exception, KeyboardInterrupt):
            self.code = 130
        elif isinstance(exception, SIGTERMException):
            self.code = 143
        elif isinstance(exception, RankError) and exception.code in {130, 143}:
            self.code = exception.code

    def _ask(self, *_: object) -> None:
        """Remember the signal until the iteration is done."""
        self._asked = True


def logged(module: RLModule, key: str, name: str, before: bool) -> float | None:
    """A number that the configuration names, out of the last iteration's log; failures that did not happen are none.

    Args:
        module: of the run.
        key: that names it.
        name: of the number.
        before: an earlier iteration had it.

    Returns:
        None for a validation's number after an iteration that no validation follows; NaN where the iteration lacks a
        number that others have, as it lacks what is measured of sound samples if it has none.

    Raises:
        UserError: no iteration, or no validation, has such a number.
    """
    line = module.line
    if name in line or name.startswith("failed_"):
        return float(line.get(name, 0.0))
    assert module.drawn is not None
    table = module.drawn.table
    awaited = name.startswith(VALIDATED) and not any(known.startswith(VALIDATED) for known in line)
    known = {*line, *(named(table) if awaited else ())}
    if name not in known and not before and None in table.reasons:
        raise UserError(f"{key}={name} is not logged; choose one of {', '.join(sorted(known))}")
    return None if awaited else math.nan


class Checkpoints(Callback):
    """Saves checkpoint_latest.pth every few iterations; checkpoint_best.pth and the averaged weights on a new best.

    Whatever ends the run, short of a kill, its last whole iteration is saved: until then it is kept in memory. Of
    several processes all compare the same numbers, and rank 0 writes.

    Attributes:
        best: value so far; NaN if there was none.
        best_iteration: that had it; None if there was none, or a checkpoint of an earlier version does not say.
    """

    def __init__(
        self, folder: Path, config: Config, snapshots: Snapshots, collective: Collective | None = None
    ) -> None:
        self.folder, self.config, self.snapshots = folder, config, snapshots
        self.writes = (collective or Alone()).rank == 0
        self.best = math.nan
        self.best_iteration: int | None = None
        self._unsaved: bytes | None = None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare, then save (Lightning)."""
        assert isinstance(pl_module, RLModule)
        before = not math.isnan(self.best)
        value = logged(pl_module, "best_checkpoint_metric", self.config.best_checkpoint_metric, before)
        value = math.nan if value is None else value
        sign = 1 if self.config.best_checkpoint_mode == "max" else -1
        best = math.isfinite(value) and not sign * value <= sign * self.best
        if best:
            self.best, self.best_iteration = value, trainer.current_epoch
        if not self.writes:
            return
        self._unsaved = self.snapshots.take(trainer)
        if best:
            write_whole(self.folder / BEST, self._unsaved)
            averaged = plain_weights(pl_module.averaged.module.state_dict(), pl_module.card, "this run")
            on_cpu = {name: weight.cpu() for name, weight in averaged.items()}  # who loads them may have no GPU
            save_tensors(self.folder / AVERAGED_WEIGHTS, on_cpu)
        done = trainer.current_epoch + 1
        if done % self.config.save_every == 0 or done == trainer.max_epochs or trainer.should_stop:
            self._save()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Save what is not saved yet (Lightning)."""
        self._save()

    def _save(self) -> None:
        """Write the last whole iteration, if it is not written."""
        if self._unsaved is not None:
            write_whole(self.folder / LATEST, self._unsaved)
            self._unsaved = None

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and of what (Lightning)."""
        return {"best": self.best, "iteration": self.best_iteration, **self._compared}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best value so far, unless it is one of another number (Lightning)."""
        unsaid = "metric" not in state_dict and self.config.best_checkpoint_metric == RAW_REWARD
        if not unsaid and _same(state_dict, self._compared):
            self.best, self.best_iteration = state_dict["best"], state_dict.get("iteration")

    @property
    def _compared(self) -> dict[str, str]:
        """What is compared, and how."""
        return _compared(self.config.best_checkpoint_metric, self.config.best_checkpoint_mode, self.config)


class Limits(Callback):
    """Ends a run in time, or when a number stops improving; of several processes rank 0 decides.

    Attributes:
        best: of the number so far, times -1 where less is better.
        waited: iterations with the number since then.
    """

    def __init__(self, config: Config, collective: Collective | None = None) -> None:
        self.config, self.collective = config, collective or Alone()
        self.started = time.monotonic()
        self.improved = self.started
        self.best, self.waited = -math.inf, 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A run that the number has ended is not trained further when it is continued (Lightning)."""
        self._stop(trainer, self._waited_out())

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check the clock and the number (Lightning)."""
        assert isinstance(pl_module, RLModule)
        self._stop(trainer, self._reasons(pl_module))

    def _stop(self, trainer: lightning.Trainer, reasons: list[str]) -> None:
        """Stop all processes if rank 0 has a reason to."""
        reasons = self.collective.of_first(reasons)
        trainer.should_stop = trainer.should_stop or bool(reasons)
        for reason in reasons if self.collective.rank == 0 else []:
            print(f"{reason}: stopping")

    def _reasons(self, module: RLModule) -> list[str]:
        """Why to stop, by this process's clock."""
        now, config, reasons = time.monotonic(), self.config, []
        if config.max_time_hours is not None and now - self.started > config.max_time_hours * 3600:
            reasons.append(f"max_time_hours={config.max_time_hours} reached")
        if config.early_stop_metric is None:
            return reasons
        value = logged(module, "early_stop_metric", config.early_stop_metric, self.best > -math.inf)
        if value is None:
            return reasons
        self._compare(value, now)
        if config.early_stop_patience is not None:
            return reasons + self._waited_out()
        if now - self.improved > config.early_stop_minutes * 60:
            reasons.append(f"{config.early_stop_metric} has not improved for {config.early_stop_minutes} minutes")
        return reasons

    def _waited_out(self) -> list[str]:
        """That the number has not improved in as many iterations as were to be waited, if so."""
        config = self.config
        if config.early_stop_patience is None or self.waited < config.early_stop_patience:
            return []
        counted = "validations" if _is_validated(config) else "iterations"
        return [f"{config.early_stop_metric} has not improved in {self.waited} {counted}"]

    def _compare(self, value: float, now: float) -> None:
        """Take in the number of an iteration."""
        value = value if self.config.early_stop_mode == "max" else -value
        if value > self.best + self.config.early_stop_delta:
            self.best, self.improved, self.waited = value, now, 0
        else:
            self.waited += 1

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, of what, and how long ago it was (Lightning)."""
        return {"best": self.best, "waited": self.waited, **self._compared}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue, unless it is with another number; the minutes without a better one start anew (Lightning)."""
        if _same(state_dict, self._compared):
            self.best, self.waited = state_dict["best"], state_dict.get("waited", 0)

    @property
    def _compared(self) -> dict[str, str]:
        """What is compared, and how."""
        return _compared(str(self.config.early_stop_metric), self.config.early_stop_mode, self.config)


def _compared(metric: str, mode: str, config: Config) -> dict[str, str]:
    """What makes the values of a number comparable: its name, the better side and, of a reward, its settings."""
    of_reward = {"reward": reward_settings(config)} if "reward" in metric else {}
    return {"metric": metric, "mode": mode, **of_reward}


def _same(stored: Mapping[str, Any], compared: Mapping[str, str]) -> bool:
    """Whether a checkpoint's best value is of the same number; checkpoints of earlier versions do not say it all."""
    return all(stored.get(name, value) == value for name, value in compared.items())


def _is_validated(config: Config) -> bool:
    """Whether validations alone have the number that ends a run."""
    return (config.early_stop_metric or "").startswith(VALIDATED)


class ScoredStructures(Callback):
    """Keeps what the last iteration's reward scored in place of its samples, a file for each metric.

    Args:
        folder: of the run.
        exporter: makes their text.
        ending: of the files.
    """

    def __init__(self, folder: Path, exporter: Exporter, ending: str) -> None:
        self._folder, self._exporter, self._ending = folder, exporter, ending

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write them (Lightning)."""
        assert isinstance(pl_module, RLModule)
        assert pl_module.drawn is not None
        for metric, structures in pl_module.drawn.table.scored_structures.items():
            self._exporter.write(self._folder / f"{metric}.{self._ending}", structures)
