"""Worker processes on this machine, the default of everything that takes `Workers`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.util.cpu_count import cores
from atomrl.util.errors import UserError
from atomrl.workers.budget import Budget
from atomrl.workers.executor import Workers
from atomrl.workers.pool import START_TIMEOUT, WorkerPool

ELSEWHERE = 300.0
"""Seconds that a worker of another environment may take to start: what needs one of its own is large."""


class LocalWorkers:
    """Hands out pools of processes that share the cores; implements `executor.Workers`.

    At most `count` processes of all its pools work at a time (`budget.Budget`). Each pool has processes of its own,
    since tasks differ in what they import, and keeps them when it is idle: an iteration asks one pool after the other,
    and a process that imports its task anew takes 0.3 s (RDKit) to 10 s (CHGNet). They start when their pool first
    needs them.

    Args:
        count: processes; one per core that this process may use if None.
        start_timeout: seconds that a process may take to import its task.
        budget: shared with other workers; one of its own if None.
        python: interpreter of another environment, in which the processes run; this one's if None.

    Raises:
        UserError: the count is below 1.
    """

    def __init__(
        self,
        count: int | None = None,
        start_timeout: float = START_TIMEOUT,
        budget: Budget | None = None,
        python: str | None = None,
    ) -> None:
        self.count = cores() if count is None else count
        if self.count < 1:
            raise UserError(f"the number of workers must be at least 1, got {self.count}")
        self.start_timeout = start_timeout
        self._budget, self._python = budget or Budget(self.count), python

    def executor(self, task: str, timeout: float, settings: Mapping[str, Any] | None = None) -> WorkerPool:
        """A pool of processes for one task; see `executor.Workers`."""
        return WorkerPool(task, self.count, timeout, settings, self.start_timeout, self._budget, self._python)

    def limited(self, most: int) -> LocalWorkers:
        """The same budget for pools of at most `most` processes each."""
        return LocalWorkers(min(most, self.count), self.start_timeout, self._budget, self._python)

    def in_environment(self, python: str) -> LocalWorkers:
        """See `executor.Workers`; the processes find this package, and else what is installed there.

        Raises:
            UserError: there is no such program.
        """
        if (found := shutil.which(Path(python).expanduser())) is None:
            raise UserError(f"python={python}: no such program; give the interpreter of an environment, .../bin/python")
        return LocalWorkers(self.count, max(self.start_timeout, ELSEWHERE), self._budget, found)


def as_workers(workers: Workers | int | None) -> Workers:
    """Workers as they are, or this many local ones; one per core if None."""
    return LocalWorkers(workers) if workers is None or isinstance(workers, int) else workers
