"""One worker process of `pool.WorkerPool`, seen from the parent; `worker.py` is what runs in it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


class Worker:
    """One process, the connection to it, and what it is doing.

    Attributes:
        starting: it has not yet said that its task is imported.
        items: places in the batch of what it was sent: the one that it works on, then what waits in its connection.
        deadline: on the monotonic clock, by which it must answer.
    """

    def __init__(self, task: str, settings: dict[str, Any], limit: float, start_timeout: float) -> None:
        self.connection: Connection[Any, Any]
        self.connection, theirs = multiprocessing.Pipe()
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        with theirs:  # output goes to a file, not a pipe, since nobody reads it while the worker lives
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "atomrl.workers.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.output,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": _search_path()},
            )
        self.starting = True
        self.items: deque[int] = deque()
        self.deadline = time.monotonic() + start_timeout
        with suppress(ConnectionError):  # if it is dead already, the first read says so
            self.connection.send((task, settings, limit))

    @property
    def idle(self) -> bool:
        """Whether it can take an item."""
        return not self.starting and not self.items

    def takes(self, pickled: bytes) -> bool:
        """Send it an item; False if it is dead. Waits until the connection's buffer has room."""
        try:
            self.connection.send_bytes(pickled)
        except ConnectionError:
            return False
        return True

    def last_line(self) -> str:
        """The last line that it printed, which after an exception is the exception."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")

    def discard(self) -> None:
        """Kill it and free its resources."""
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.output.close()


def _search_path() -> str:
    """This process's `sys.path`, so that a worker finds what its parent finds."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)
