"""One worker process of `pool.WorkerPool`, seen from the parent; `worker.py` is what runs in it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import atomrl
from atomrl.workers.lots import BUFFER, Lot
from atomrl.workers.progress import Progress, make_room

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}

GRACE = 5.0
"""Seconds after its time-out at which a worker ends itself, should the parent no longer be there to do it."""


SAID = 1_000_000
"""Bytes that a worker may print between two answers before what it has printed is forgotten; some calculators print a
page for each molecule."""


class Worker:
    """One process, the connection to it, and what it is doing.

    Attributes:
        starting: it has not yet said that its task is imported.
        lots: what it was sent and has not answered: the one that it works on, then what waits in its connection.
    """

    def __init__(
        self,
        task: str,
        settings: Mapping[str, Any],
        timeout: float,
        start_timeout: float,
        python: str | None = None,
    ) -> None:
        self.connection, theirs = connected()
        search_path = _search_path() if python is None else _package_alone()
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        with theirs, tempfile.TemporaryFile() as shared:
            make_room(shared)
            self.progress = Progress(shared.fileno())
            # output goes to a file, not a pipe, since nobody reads it while the worker lives
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [
                    python or sys.executable,
                    "-P",
                    "-m",
                    "atomrl.workers.worker",
                    str(theirs.fileno()),
                    str(shared.fileno()),
                ],
                pass_fds=[theirs.fileno(), shared.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.output,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": search_path},
                process_group=0,  # so that `end` finds the programs that a task starts
            )
        self.starting = True
        self.lots: deque[Lot] = deque()
        self._timeout, self._start_timeout = timeout, start_timeout
        self._since = time.monotonic()
        self._answered = 0
        with suppress(ConnectionError):  # if it is dead already, the first read says so
            self.connection.send((task, dict(settings), timeout + GRACE))

    @property
    def idle(self) -> bool:
        """Whether it waits for work."""
        return not self.starting and not self.lots

    @property
    def deadline(self) -> float:
        """By which it must have started, or finished the item that it works on, on the monotonic clock."""
        if self.starting:
            return self._since + self._start_timeout
        return max(self._since, self.progress.started) + self._timeout

    def takes(self, lot: Lot) -> bool:
        """Send it a lot; False if it is dead. Waits until the connection's buffer has room."""
        try:
            self.connection.send(lot.pickled)
        except ConnectionError:
            return False
        if not self.lots:
            self._since = time.monotonic()
        self.lots.append(lot)
        return True

    def answered(self) -> Lot:
        """Note that it has answered the first lot, and works on the next one if it has one."""
        self._since = time.monotonic()
        if os.fstat(file := self.output.fileno()).st_size > SAID:
            os.lseek(file, 0, os.SEEK_SET)  # the worker writes at the same place
            os.ftruncate(file, 0)
        lot = self.lots.popleft()
        self._answered += len(lot.places)
        return lot

    def place(self) -> int:
        """Which item it works on, or had when it died: its place in the batch."""
        places = self.lots[0].places
        return places[min(self.progress.done - self._answered, len(places) - 1)]

    def last_line(self) -> str:
        """The last line that it printed, which after an exception is the exception."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")

    def end(self) -> None:
        """End the process at once, and the programs that its task has started."""
        with suppress(ProcessLookupError, PermissionError):  # all gone; macOS has the second one for that
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """The same, and wait until the process is gone."""
        self.end()
        self.process.wait()

    def discard(self) -> None:
        """Kill it and free its resources."""
        self.kill()
        self.connection.close()
        self.output.close()
        self.progress.close()


def connected() -> tuple[Connection[Any, Any], Connection[Any, Any]]:
    """Both ends of a connection that takes `BUFFER` bytes while nobody reads, on every system."""
    ends = socket.socketpair()
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return Connection(ends[0].detach()), Connection(ends[1].detach())


@cache
def _package_alone() -> str:
    """A folder with this package alone, for a process that must not see what is installed beside it."""
    folder = Path(tempfile.mkdtemp(prefix="atomrl-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "atomrl").symlink_to(Path(atomrl.__file__).parent, target_is_directory=True)
    return str(folder)


def _search_path() -> str:
    """This process's `sys.path`, so that a worker finds what its parent finds."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)
