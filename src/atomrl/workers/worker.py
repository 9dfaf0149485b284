"""The other end of `pool.WorkerPool`: one process that runs one task on item after item.

Started as `python -m atomrl.workers.worker CONNECTION PROGRESS`, a socket and a file inherited from the parent. It
imports no torch: GFN2 in one process with torch's thread pools is slow and its energies can change from call to call.

Messages, parent to worker: first (task, settings, limit), then one lot at a time, a tuple of pickled items. Worker to
parent: first `READY`, then for each lot (pickled (value, reason) of each item, seconds that the lot took).
"""

from __future__ import annotations

import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from atomrl.util.own_frames import in_words, own_frame
from atomrl.workers.executor import EXCEPTION
from atomrl.workers.failure import Failure
from atomrl.workers.progress import Progress

READY = "ready"


def main() -> None:
    """Serve until the parent closes the connection or dies."""
    # Ctrl-C in the terminal and SIGTERM to a batch job reach the workers too, but are the parent's business: it may
    # want the iteration's scores, and ends the workers by a kill or by closing the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    progress = Progress(int(sys.argv[2]))
    task, settings, limit = connection.recv()
    function = load_task(task)
    if isinstance(function, type):
        function, settings = function(**settings), {}
    try:
        connection.send(READY)
        while True:
            lot = connection.recv()
            begin = time.monotonic()
            answers = _answers(function, settings, lot, limit, progress)
            connection.send((answers, time.monotonic() - begin))
    except (EOFError, OSError):  # the parent has closed its end, or is gone
        return


def load_task(task: str) -> Callable[..., object]:
    """The function, or the class, that "module:function" names."""
    module, _, name = task.partition(":")
    function: Callable[..., object] = getattr(import_module(module), name)
    return function


def _answers(
    function: Callable[..., object], settings: dict[str, Any], lot: Sequence[bytes], limit: float, progress: Progress
) -> list[bytes]:
    """Pickled (value, reason) of each item of a lot."""
    answers = []
    for pickled in lot:
        progress.begin()
        # The parent kills an overdue worker. If the parent itself is gone, the kernel does, a little later.
        signal.setitimer(signal.ITIMER_REAL, limit)
        answers.append(_answer(function, settings, pickled))
        progress.end()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return answers


def _answer(function: Callable[..., object], settings: dict[str, Any], pickled: bytes) -> bytes:
    """Pickled (value, reason) of one item."""
    try:
        return pickle.dumps((function(pickle.loads(pickled), **settings), None))  # noqa: S301 - from our own parent
    except Failure as failure:
        return pickle.dumps((None, failure.reason))
    except Exception as error:  # noqa: BLE001
        # The process boundary: what a task (possibly a user's) raises cannot travel up the stack, so it travels as
        # the reason of this one item. Nothing else runs inside this `try`.
        message = " ".join(str(error).split())
        where = in_words(own_frame(error))
        return pickle.dumps((None, f"{EXCEPTION}{type(error).__name__}: {message}{where}"))


if __name__ == "__main__":
    main()
