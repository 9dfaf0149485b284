"""A pool of worker processes that never import torch, each with one thread and a time-out per item.

Not `multiprocessing.Pool`: its spawned processes import the user's `__main__` again (and with it torch), it has no
time-out that kills, and it waits for ever for an item whose worker died.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from atomrl.util.closeable import Closing
from atomrl.util.errors import UserError
from atomrl.workers.worker_process import Worker

log = logging.getLogger(__name__)

TIMEOUT = "timeout"
WORKER_DIED = "worker_died"

START_TIMEOUT = 120.0
"""Seconds that a worker may take to import its task, if nothing else is said; a cold network file system needs many."""

START_ATTEMPTS = 3
"""Workers killed by a signal while they start, one after the other, before the pool gives up."""

GRACE = 5.0
"""Seconds after its time-out at which a worker ends itself, should the parent no longer be there to do it."""

SMALL = 4096
"""Bytes of an item that a busy worker may be sent: half of what macOS buffers for a connection, Linux does far more."""


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Attributes:
        value: what the task returned; None if it failed.
        reason: None if it worked; else `timeout`, `worker_died`, the reason of a `Failure`, or
            `error: TypeName: message` for an exception that the task did not foresee.
    """

    value: Any
    reason: str | None


class WorkerPool(Closing):
    """Runs one task over many items in worker processes; results do not depend on the number of workers.

    Workers start when the first items come, stay warm between calls, and end when the pool closes or this process
    dies. A worker that exceeds the time-out is killed, one that dies is noticed; either is replaced, only the item
    that it worked on is lost, and the outcome says why.

    Args:
        task: "module:function", imported in the worker from this process's `sys.path`. The function takes one
            picklable item (and `settings` as keywords), returns a picklable value, and raises `Failure` for an item
            that has none.
        workers: number of processes.
        timeout: seconds per item.
        settings: picklable keyword arguments of the function.
        start_timeout: seconds that a worker may take to import the task.
    """

    def __init__(
        self,
        task: str,
        workers: int,
        timeout: float,
        settings: Mapping[str, Any] | None = None,
        start_timeout: float = START_TIMEOUT,
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
        self._running: list[Worker] = []
        self._failed_starts = 0
        self._closed = False
        self._lock = threading.Lock()
        self._feeder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker-pool")
        weakref.finalize(self, _discard_all, self._running)

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
                worker.process.kill()
        self._feeder.shutdown(wait=True)
        _discard_all(self._running)

    def _run(self, items: list[object]) -> list[Outcome]:
        """Feed the workers until every item has an outcome; runs in the feeder thread."""
        outcomes: dict[int, Outcome] = {}
        queue = _Queue(items)
        try:
            while len(outcomes) < len(items):
                self._assign(queue)
                self._send_ahead(queue)
                outcomes.update(self._collect(queue))
        finally:  # after an error some may still hold items of this batch: their answers must not reach the next one
            for worker in [worker for worker in self._running if worker.items]:
                self._discard(worker)
        return [outcomes[index] for index in range(len(items))]

    def _assign(self, queue: _Queue) -> None:
        """Start workers as far as there is work for them, and give each idle one an item."""
        for worker in [worker for worker in self._running if worker.idle and worker.process.poll() is not None]:
            self._discard(worker)  # died between two items: nothing is lost
        busy = sum(bool(worker.items) for worker in self._running)
        for _ in range(min(self.workers, busy + len(queue)) - len(self._running)):
            self._start()
        for worker in [worker for worker in self._running if worker.idle]:
            if not queue:
                return
            if worker.takes(queue.pickled()):
                worker.items.append(queue.pop())
                worker.deadline = time.monotonic() + self.timeout
            else:  # died just now, before it saw the item
                self._discard(worker)

    def _send_ahead(self, queue: _Queue) -> None:
        """Give each busy worker its next small item, so that it need not wait for this process between two.

        The last items of a batch are kept for whoever is free first. A large item could fill the connection's buffer,
        and this process would wait for a worker that may hang.
        """
        for worker in [worker for worker in self._running if len(worker.items) == 1]:
            if len(queue) <= self.workers or len(queue.pickled()) > SMALL:
                return
            if worker.takes(queue.pickled()):  # if it died just now, `_collect` finds it
                worker.items.append(queue.pop())

    def _collect(self, queue: _Queue) -> Iterator[tuple[int, Outcome]]:
        """Wait until a worker answers, dies or is overdue, and yield the outcomes of the items that this settles."""
        active = [worker for worker in self._running if not worker.idle]
        if not active:
            return
        patience = max(0.0, min(worker.deadline for worker in active) - time.monotonic())
        ready = wait([worker.connection for worker in active], patience)
        now = time.monotonic()
        for worker in active:
            held = list(worker.items)
            if worker.connection in ready:
                outcome = self._read(worker)
            elif now >= worker.deadline:
                outcome = self._expire(worker)
            else:
                continue
            if worker not in self._running:
                queue.put_back(held[1:])
            if held and outcome is not None:
                yield held[0], outcome

    def _read(self, worker: Worker) -> Outcome | None:
        """Take a worker's message: an outcome, or None if it says that it has started."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of a message
            return self._bury(worker)
        if worker.starting:
            worker.starting, self._failed_starts = False, 0
            return None
        worker.items.popleft()
        worker.deadline = time.monotonic() + self.timeout  # of the item that was sent ahead, if there is one
        return Outcome(*message)

    def _bury(self, worker: Worker) -> Outcome | None:
        """Remove a worker that died.

        Raises:
            UserError: it died because it cannot start.
            RuntimeError: it died because the pool was closed.
        """
        code = worker.process.wait()
        last_line = worker.last_line()
        self._discard(worker)
        if self._closed:
            raise RuntimeError("the worker pool was closed while a batch was running")
        if not worker.starting:
            log.warning("a worker for %s died (exit code %d) and is replaced: %s", self.task, code, last_line)
            return Outcome(None, WORKER_DIED)
        self._failed_starts += 1
        if code >= 0 or self._failed_starts >= START_ATTEMPTS:
            raise UserError(f"a worker process for {self.task} cannot start (exit code {code}): {last_line}")
        return None

    def _expire(self, worker: Worker) -> Outcome | None:
        """Kill a worker that is overdue."""
        last_line = worker.last_line()
        self._discard(worker)
        if worker.starting:
            raise UserError(
                f"a worker process for {self.task} was not ready after {self.start_timeout:g} s; "
                f"check that the module imports quickly: {last_line}"
            )
        return Outcome(None, TIMEOUT)

    def _start(self) -> None:
        """Start a worker; it becomes idle once it has imported its task."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            self._running.append(Worker(self.task, self.settings, self.timeout + GRACE, self.start_timeout))

    def _discard(self, worker: Worker) -> None:
        """Kill a worker and forget it."""
        with self._lock:
            self._running.remove(worker)
        worker.discard()


class _Queue:
    """Items that no worker has yet, in order; the first is pickled once, when it is looked at."""

    def __init__(self, items: list[object]) -> None:
        self._items = items
        self._places = deque(range(len(items)))
        self._pickled: bytes | None = None

    def __len__(self) -> int:
        return len(self._places)

    def pickled(self) -> bytes:
        """The first item, as a worker reads it."""
        if self._pickled is None:
            self._pickled = pickle.dumps(self._items[self._places[0]])
        return self._pickled

    def pop(self) -> int:
        """Take the first item off; its place in the batch."""
        self._pickled = None
        return self._places.popleft()

    def put_back(self, places: Sequence[int]) -> None:
        """Items that a worker was sent and cannot have begun go first again."""
        self._pickled = None
        self._places.extendleft(reversed(places))


def _discard_all(workers: list[Worker]) -> None:
    """Kill workers and forget them."""
    while workers:
        workers.pop().discard()
