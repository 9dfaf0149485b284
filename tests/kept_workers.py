"""Worker processes that take seconds to start, handed on from one test to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from selectors import EVENT_READ
from typing import Any, NamedTuple

from atomrl.workers.budget import Budget
from atomrl.workers.executor import Outcome
from atomrl.workers.pool import START_TIMEOUT, WorkerPool
from atomrl.workers.worker_process import Worker

KEPT = ("atomrl.force_fields.chgnet:", "atomrl.force_fields.relax_task:")
"""Tasks of these modules are kept: they import torch, pymatgen and CHGNet, for 5 to 10 s of a slow core."""

MOST = 4
"""Sets of workers that wait for the next test."""


class Waiting(NamedTuple):
    """Workers of a pool that was closed, and what they are workers of."""

    kind: tuple[Any, ...]
    workers: list[Worker]

    def end(self) -> None:
        """Kill them."""
        for worker in self.workers:
            worker.discard()


class KeptPool(WorkerPool):
    """Leaves its workers to the next pool of its kind when it is closed, unless it is at work then."""

    def __init__(self, kind: tuple[Any, ...], budget: Budget | None, waiting: list[Waiting]) -> None:
        task, workers, timeout, settings, start_timeout, python = kind
        super().__init__(task, workers, timeout, settings, start_timeout, budget, python)
        self._kind, self._waiting = kind, waiting
        self._batches: list[Future[list[Outcome]]] = []
        if found := next((one for one in waiting if one.kind == kind), None):
            waiting.remove(found)
            for worker in found.workers:
                self._running.append(worker)
                self._selector.register(worker.connection, EVENT_READ)

    def submit(self, items: Sequence[object]) -> Future[list[Outcome]]:
        """Run a batch."""
        self._batches = [batch for batch in self._batches if not batch.done()]
        self._batches.append(super().submit(items))
        return self._batches[-1]

    def close(self) -> None:
        """Close; a pool whose batches are all done leaves its workers."""
        done = all(batch.done() for batch in self._batches)
        if done and self._running and all(worker.idle for worker in self._running):
            for worker in self._running:
                self._selector.unregister(worker.connection)
            self._waiting.append(Waiting(self._kind, [*self._running]))
            self._running.clear()
            if len(self._waiting) > MOST:
                self._waiting.pop(0).end()
        super().close()


class KeptWorkers:
    """Makes the pools of `LocalWorkers`."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []

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
        """A pool as `WorkerPool` makes it, with the workers of one of its kind that was closed."""
        if not task.startswith(KEPT):
            return WorkerPool(task, workers, timeout, settings, start_timeout, budget, python)
        kind = (task, workers, timeout, dict(settings or {}), start_timeout, python)
        return KeptPool(kind, budget, self._waiting)

    def close(self) -> None:
        """End those that wait."""
        while self._waiting:
            self._waiting.pop().end()
