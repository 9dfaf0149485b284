"""What a training prints: a bar or lines while it runs, and at the end what came of it and what to do next."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from atomrl.checkpoints.named import BEST, EVALUATION, LATEST, METRICS
from atomrl.config import Config
from atomrl.config.objects import call_with_objects, objects_of
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import TABLES
from atomrl.training.callbacks import Checkpoints
from atomrl.training.run_directory import how_to_resume
from atomrl.user_code.trust import foreign_code
from atomrl.util.progress import bar, shown


class BarOrLines(Callback):
    """A progress bar on a terminal and printed lines elsewhere: what the trainings share that show them.

    Args:
        names: of the numbers beside the bar, or in a line, as far as they are logged.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.bar: tqdm[int] | None = None

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar (Lightning)."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """The same (Lightning)."""
        self._close()

    def _numbers(self, trainer: lightning.Trainer) -> dict[str, str]:
        """What is logged under the names."""
        numbers = {name: trainer.callback_metrics[name] for name in self.names if name in trainer.callback_metrics}
        return {name: f"{float(value):.3f}" for name, value in numbers.items()}

    def _print(self, done: str, numbers: Mapping[str, str], pace: str, seconds_left: float) -> None:
        """A line with the time of day, unless there is a bar."""
        if not shown():
            said = ", ".join(f"{name} {value}" for name, value in numbers.items())
            left = f", {spoken(seconds_left)} left" if seconds_left else ""
            print(f"{datetime.now():%H:%M:%S} {done}: {said}; {pace}{left}", flush=True)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Progress(BarOrLines):
    """A progress bar on a terminal; elsewhere a line every few iterations, with the second one and the last.

    The first iteration also starts workers and imports what it needs, so that no estimate counts it.

    Args:
        names: of the numbers beside the bar, or in a line, as far as they are logged.
        every: iterations from one line to the next; 0: none.
    """

    def __init__(self, names: Sequence[str] = ("reward",), every: int = 10) -> None:
        super().__init__(names)
        self.every = every
        self.started = self.first_end = 0.0
        self.first: int | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock (Lightning)."""
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Move the bar, or print a line (Lightning)."""
        assert trainer.max_epochs is not None
        done, now = trainer.current_epoch + 1, time.monotonic()
        left = trainer.max_epochs - done
        if self.bar is None or self.first is None:
            self.first, self.first_end = done, now
            seconds = spoken(now - self.started)
            print(f"first iteration: {seconds}, including the start-up; {left} left", flush=True)
            self.bar = bar(range(left), "train", total=left, leave=True)
            return
        numbers = self._numbers(trainer)
        self.bar.set_postfix(numbers, refresh=False)
        self.bar.update()
        if self.every and (done % self.every == 0 or done == self.first + 1 or not left):
            each = (now - self.first_end) / (done - self.first)
            self._print(f"{done} of {trainer.max_epochs}", numbers, f"{spoken(each)} each", each * left)


def spoken(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def what_came_of_it(folder: Path, config: Config, checkpoints: Checkpoints, done: int, seconds: float) -> str:
    """How far a training came, its best iteration, and where everything is.

    Args:
        folder: the run directory.
        config: of the run.
        checkpoints: that know the best.
        done: iterations, those before it was continued among them.
        seconds: that this process trained.
    """
    metric = config.best_checkpoint_metric
    lines = [f"{done} of {config.dataloader.epoches} iterations done, {spoken(seconds)}"]
    if math.isnan(checkpoints.best):
        lines.append(f"there is no best iteration: none has a number for {metric}")
    else:  # checkpoints of an earlier version know the value, and not whose it is
        best = "one written by an earlier version" if checkpoints.best_iteration is None else checkpoints.best_iteration
        lines.append(f"best iteration: {best}, {metric}={checkpoints.best:.4g}")
    places = {
        LATEST: "the last iteration, which commands use if given the folder",
        BEST: f"the best by {'an earlier metric' if math.isnan(checkpoints.best) else metric}",
        METRICS: "a line for each iteration, from 0",
        "tensorboard": f"open with: {shlex.join(['tensorboard', '--logdir', str(folder)])}",
        "wandb": "what W&B got",
        "csv": "the same as a table",
    }
    there = {name: what for name, what in places.items() if (folder / name).exists()}
    width = max((len(str(folder / name)) for name in there), default=0)
    return "\n".join([*lines, *(f"  {folder / name!s:{width}}  {what}" for name, what in there.items())])


def next_commands(folder: Path, config: Config, domain: Domain[Any, Any]) -> str:
    """The two commands that one would type next: compare, then draw; of a run that was compared, draw or go on.

    Args:
        folder: the run directory.
        config: of the run.
        domain: of it.
    """
    samples = folder.with_name(f"{folder.name}.{domain.formats[0]}")
    draw = shlex.join(["atomrl", "sample", "--backbone", str(folder), "--output", str(samples)])
    if "policy" in objects_of(config):
        draw = f"{call_with_objects('Run', folder, config)}.sample(10) in Python"
    table = folder / EVALUATION
    if (table / TABLES).exists():
        second = how_to_resume(folder, config, f"dataloader.epoches={2 * config.dataloader.epoches}")
        return f"next:\n  {draw}\n  {second}"
    return f"next:\n  {_how_to_compare(folder, config, table)}\n  {draw}"


def _how_to_compare(folder: Path, config: Config, table: Path) -> str:
    """The command that judges a run beside what it started from; of one with objects of a program, the call."""
    if objects_of(config):
        return f"{call_with_objects('Run', folder, config)}.evaluate(500, output={str(table)!r}) in Python"
    trust = ["--trust-code"] if foreign_code(config.code) else []
    words = ["atomrl", "evaluate", "--base", config.model.backbone, "--trained", str(folder), *trust]
    return shlex.join([*words, "--output", str(table)])
