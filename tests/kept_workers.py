"""Worker processes that take seconds to start, handed on from one test to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from atomrl.workers.budget import Budget
from atomrl.workers.executor import Outcome
from atomrl.workers.pool import START_TIMEOUT, WorkerPool

KEPT = ("atomrl.force_fields.chgnet:", "atomrl.force_fields.relax_task:")
"""Tasks of these modules are kept: they import torch, pymatgen and CHGNet, for 5 to 10 s of a slow core."""

MOST = 4
"""Pools that wait for the next test."""


class KeptPool(WorkerPool):
    """Waits for its next user when one closes it, unless it is at work then."""

    def __init__(self, *given: Any, waiting: list[KeptPool], **named: Any) -> None:
        super().__init__(*given, **named)
        self._waiting = waiting
        self._batches: list[Future[list[Outcome]]] = []

    def submit(self, items: Sequence[object]) -> Future[list[Outcome]]:
        """Run a batch."""
        self._batches = [batch for batch in self._batches if not batch.done()]
        self._batches.append(super().submit(items))
        return self._batches[-1]

    def close(self) -> None:
        """Wait, or end where a batch is not done or no worker is idle."""
        if self in self._waiting:
            return
        done = all(batch.done() for batch in self._batches)
        if not done or not self._running or not all(worker.idle for worker in self._running):
            self.end()
            return
        self._waiting.append(self)
        if len(self._waiting) > MOST:
            self._waiting.pop(0).end()

    def end(self) -> None:
        """Close."""
        super().close()

    def taken(self, budget: Budget) -> KeptPool:
        """The pool, for a user with a budget."""
        self._waiting.remove(self)
        self._budget = budget
        return self


class KeptWorkers:
    """Makes the pools of `LocalWorkers`."""

    def __init__(self) -> None:
        self._waiting: list[KeptPool] = []

    def pool(
        self,
        task: str,
        workers: int,
        timeout: float,
        settings: Mapping[str, Any] | None = None,
        start_timeout: float = START_TIMEOUT,
        budget: Budget | None = None,
        python: str | None = None,
    ) -> WorkerPool:
        """A pool as `WorkerPool` makes it, or one of the same task that waits."""
        wanted = (task, workers, timeout, dict(settings or {}), start_timeout, python)
        if not task.startswith(KEPT):
            return WorkerPool(task, workers, timeout, settings, start_timeout, budget, python)
        for pool in self._waiting:
            if (pool.task, pool.workers, pool.timeout, pool.settings, pool.start_timeout, pool.python) == wanted:
                return pool.taken(budget or Budget(workers))
        return KeptPool(task, workers, timeout, settings, start_timeout, budget, python, waiting=self._waiting)

    def close(self) -> None:
        """End those that wait."""
        while self._waiting:
            self._waiting.pop().end()
