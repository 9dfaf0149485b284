"""A pool of worker processes that never import torch, each with one thread and a time-out per item.

Why not one that there is. What the workers of a training need: they start without the user's `__main__` (a script that
imports torch, whose thread pools slow GFN2-xTB down by orders of magnitude) and without forking a threaded torch; one
thread each; a time-out that kills; a death that costs one item.

- `multiprocessing.Pool` and `concurrent.futures`: spawn and forkserver import `__main__` again; no time-out that kills.
  One waits for ever for an item whose worker died, the other breaks as a whole.
- loky starts without `__main__`, but has no time-out of an item, and one dead worker breaks the executor: all that is
  under way is lost.
- pebble has both, on `multiprocessing`'s ways to start. Its time-out is that of a message: with several items in one,
  which small molecules need, a hang or a death loses all of them.

What would have to be built around either is most of what is here.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from atomrl.util.closeable import Closing
from atomrl.util.errors import UserError
from atomrl.workers.budget import Budget
from atomrl.workers.executor import TIMEOUT, WORKER_DIED, Outcome
from atomrl.workers.lots import Pace, Queue
from atomrl.workers.worker_process import Worker

log = logging.getLogger(__name__)

START_TIMEOUT = 120.0
"""Seconds that a worker may take to import its task, if nothing else is said; a cold network file system needs many."""

START_ATTEMPTS = 3
"""Workers killed by a signal while they start, one after the other, before the pool gives up."""


class WorkerPool(Closing):
    """Runs one task over many items in worker processes; implements `executor.Executor`.

    Workers start when the first items come, stay warm between calls, and end when the pool closes or this process
    dies. A worker that exceeds the time-out is killed, one that dies is noticed; either is replaced, only the item
    that it worked on is lost, and the outcome says why. Results depend neither on the number of workers nor on how
    many items go in one message.

    Args:
        task: "module:function", imported in the worker from this process's `sys.path`. The function takes one
            picklable item (and `settings` as keywords), returns a picklable value, and raises `Failure` for an item
            that has none.
        workers: number of processes.
        timeout: seconds per item.
        settings: picklable keyword arguments of the function.
        start_timeout: seconds that a worker may take to import the task.
        budget: shared with other pools; None if this one has the cores to itself.
        python: interpreter of another environment; this one's if None.
    """

    def __init__(
        self,
        task: str,
        workers: int,
        timeout: float,
        settings: Mapping[str, Any] | None = None,
        start_timeout: float = START_TIMEOUT,
        budget: Budget | None = None,
        python: str | None = None,
    ) -> None:
        if workers < 1:
            raise UserError(f"a worker pool needs at least one worker, got {workers}: set workers to 1 or more")
        for name, seconds in (("time-out", timeout), ("start time-out", start_timeout)):
            if seconds <= 0:
                raise UserError(f"the {name} of a worker pool must be positive, got {seconds} s")
        if not all(task.partition(":")):
            raise UserError(f'the task of a worker pool is written "module:function", got "{task}"')
        self.task = task
        self.workers = workers
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.settings = dict(settings or {})
        self.python = python
        self._budget = budget or Budget(workers)
        self._pace = Pace()
        self._running: list[Worker] = []
        self._selector = DefaultSelector()  # `multiprocessing.connection.wait` makes one at each call
        self._failed_starts = 0
        self._closed = False
        self._lock = threading.Lock()
        self._feeder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker-pool")
        weakref.finalize(self, _discard_all, self._running, self._selector)

    def map(self, items: Sequence[object]) -> list[Outcome]:
        """Outcomes of the items, in their order.

        Raises:
            UserError: a worker cannot start, e.g. because the task's module lacks an import.
        """
        return self.submit(items).result()

    def submit(self, items: Sequence[object]) -> Future[list[Outcome]]:
        """The same, in the background: `submit(items).result()` is `map(items)`. Batches run one after the other."""
        return self._feeder.submit(self._run, list(items))

    def map_lots(self, items: Sequence[object], size: int) -> list[Outcome]:
        """Outcomes of the items, in their order, by a task that gets a list of them and returns one value for each.

        A lot without an answer, whatever the reason, goes again item by item (lists of one), so that only the culprit
        stays without a value. The time-out is that of a lot.

        Args:
            items: of all lots.
            size: items per lot, at least 1.

        Raises:
            UserError: as `map`.
        """
        lots = [list(items[start : start + size]) for start in range(0, len(items), size)]
        answers = list(zip(lots, self.map(lots), strict=True))
        lost = [item for lot, outcome in answers if outcome.reason is not None and len(lot) > 1 for item in lot]
        again = iter(self.map_lots(lost, 1) if lost else [])
        outcomes: list[Outcome] = []
        for lot, outcome in answers:
            if outcome.reason is None:
                outcomes += [Outcome(value, None) for _, value in zip(lot, outcome.value, strict=True)]
            else:
                outcomes += [next(again) for _ in lot] if len(lot) > 1 else [outcome]
        return outcomes

    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.process.pid for worker in self._running]

    def close(self) -> None:
        """End the workers at once. The batch that is running raises `RuntimeError`, those behind it are canceled."""
        self._feeder.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            for worker in self._running:
                worker.end()
        self._feeder.shutdown(wait=True)
        _discard_all(self._running, self._selector)

    def _run(self, items: list[object]) -> list[Outcome]:
        """Feed the workers until every item has an outcome; runs in the feeder thread."""
        outcomes: dict[int, Outcome] = {}
        queue = Queue(items)
        try:
            while len(outcomes) < len(items):
                self._assign(queue)
                self._send_ahead(queue)
                outcomes.update(self._collect(queue))
        finally:  # after an error some may still hold items of this batch: their answers must not reach the next one
            for worker in [worker for worker in self._running if worker.lots]:
                self._discard(worker)
            self._budget.claim(self, busy=0, wanted=0)
        return [outcomes[index] for index in range(len(items))]

    def _assign(self, queue: Queue) -> None:
        """Start workers as far as there is work and budget for them, and give each idle one a lot."""
        for worker in [worker for worker in self._running if worker.idle and worker.process.poll() is not None]:
            self._discard(worker)  # died between two lots: nothing is lost
        busy = sum(bool(worker.lots) for worker in self._running)
        granted = self._budget.claim(self, busy, min(self.workers, busy + len(queue)))
        for _ in range(granted - len(self._running)):
            self._start()
        for worker in [worker for worker in self._running if worker.idle][: max(0, granted - busy)]:
            if not queue:
                return
            lot = queue.first(self._pace.size(len(queue), self.workers))
            if worker.takes(lot):
                queue.remove(lot)
            else:  # died just now, before it saw the lot
                self._discard(worker)

    def _send_ahead(self, queue: Queue) -> None:
        """Give each busy worker its next lot, so that it need not wait for this process between two.

        The last items of a batch are kept for whoever is free first. A large item could fill the connection's buffer,
        and this process would wait for a worker that may hang.
        """
        for worker in [worker for worker in self._running if len(worker.lots) == 1]:
            size = self._pace.size(len(queue), self.workers)
            if len(queue) <= size * self.workers:
                return
            lot = queue.first(size)
            if not lot.small:
                return
            if worker.takes(lot):  # if it died just now, `_collect` finds it
                queue.remove(lot)

    def _collect(self, queue: Queue) -> Iterator[tuple[int, Outcome]]:
        """Wait until a worker answers, dies or is overdue, and yield the outcomes of the items that this settles."""
        active = [worker for worker in self._running if not worker.idle]
        if not active:
            return
        patience = max(0.0, min(worker.deadline for worker in active) - time.monotonic())
        ready = {key.fd for key, _ in self._selector.select(patience)}
        for worker in active:
            if worker.connection.fileno() in ready:
                yield from self._read(worker, queue)
            elif time.monotonic() >= worker.deadline:
                yield from self._expire(worker, queue)

    def _read(self, worker: Worker, queue: Queue) -> Iterator[tuple[int, Outcome]]:
        """Take a worker's message: that it has started, or the answers of a lot, or that it is dead."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of a message
            yield from self._bury(worker, queue)
            return
        if worker.starting:
            worker.starting, self._failed_starts = False, 0
            return
        answers, seconds = message
        self._pace.add(len(answers), seconds)
        for place, answer in zip(worker.answered().places, answers, strict=True):
            yield place, Outcome(*pickle.loads(answer))  # noqa: S301 - from our own worker

    def _bury(self, worker: Worker, queue: Queue) -> Iterator[tuple[int, Outcome]]:
        """Remove a worker that died.

        Raises:
            UserError: it died because it cannot start.
            RuntimeError: it died because the pool was closed.
        """
        code = worker.process.wait()
        if self._closed:
            self._discard(worker)
            raise RuntimeError("the worker pool was closed while a batch was running")
        if worker.starting:
            self._failed_starts += 1
            last_line = worker.last_line()
            self._discard(worker)
            if code >= 0 or self._failed_starts >= START_ATTEMPTS:
                raise UserError(f"a worker process for {self.task} cannot start (exit code {code}): {last_line}")
            return
        log.warning("a worker for %s died (exit code %d) and is replaced: %s", self.task, code, worker.last_line())
        yield self._lose(worker, queue), Outcome(None, WORKER_DIED)

    def _expire(self, worker: Worker, queue: Queue) -> Iterator[tuple[int, Outcome]]:
        """Kill a worker that is overdue.

        Raises:
            UserError: it has not even started.
        """
        worker.kill()
        if worker.starting:
            last_line = worker.last_line()
            self._discard(worker)
            raise UserError(
                f"a worker process for {self.task} was not ready after {self.start_timeout:g} s; "
                f"check that the module imports quickly: {last_line}"
            )
        if time.monotonic() < worker.deadline:  # it went on to its next item before the kill reached it
            queue.put_back([place for lot in worker.lots for place in lot.places])
            self._discard(worker)
            return
        yield self._lose(worker, queue), Outcome(None, TIMEOUT)

    def _lose(self, worker: Worker, queue: Queue) -> int:
        """Remove a dead worker: the place of the item that it is blamed on; the others that it had go again."""
        blamed = worker.place()
        queue.put_back([place for lot in worker.lots for place in lot.places if place != blamed])
        self._discard(worker)
        return blamed

    def _start(self) -> None:
        """Start a worker; it becomes idle once it has imported its task."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            worker = Worker(self.task, self.settings, self.timeout, self.start_timeout, self.python)
            self._running.append(worker)
            self._selector.register(worker.connection, EVENT_READ)

    def _discard(self, worker: Worker) -> None:
        """Kill a worker and forget it."""
        with self._lock:
            self._running.remove(worker)
            self._selector.unregister(worker.connection)
        worker.discard()


def _discard_all(workers: list[Worker], selector: DefaultSelector) -> None:
    """Kill workers and forget them."""
    selector.close()
    while workers:
        workers.pop().discard()
