"""What a pre-training prints while it runs: a bar on a terminal, a line every few minutes elsewhere."""

from __future__ import annotations

import time

import lightning

from atomrl.training.announcements import BarOrLines
from atomrl.util.progress import bar

NAMES = ("loss", "val_loss", "val_mae", "val_match_rate")
FIRST_LINE = 10
"""Steps after the first one, when there is an estimate to print."""


class StepProgress(BarOrLines):
    """A progress bar of the steps on a terminal; elsewhere a line after ten of them, then one every few minutes.

    No estimate counts the first step, which also does what is done once.

    Args:
        minutes: from one line to the next.
        log_every: steps from one look at the numbers to the next, since a GPU is waited for; 0: none are shown.
    """

    def __init__(self, minutes: float, log_every: int) -> None:
        super().__init__(NAMES)
        self.seconds, self.log_every = 60 * minutes, log_every
        self.first_end = self.printed = 0.0
        self.first = 0

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Move the bar, or print a line (Lightning)."""
        done, total, now = trainer.global_step, trainer.max_steps, time.monotonic()
        if self.bar is None:
            self.first, self.first_end, self.printed = done, now, now
            self.bar = bar(range(total), "steps", total=total, initial=done, leave=True)
            return
        self.bar.update()
        if self.log_every and done % self.log_every == 0:
            self.bar.set_postfix(self._numbers(trainer), refresh=False)
        if done == self.first + FIRST_LINE or (now - self.printed >= self.seconds and done < total):
            each = (now - self.first_end) / (done - self.first)
            pace = f"{1 / max(each, 1e-9):.3g} steps/s"
            self._print(f"{done:,} of {total:,} steps", self._numbers(trainer), pace, each * (total - done))
            self.printed = now
