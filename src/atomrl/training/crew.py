"""The processes of a training that several do together: how they meet, wait for each other, and end.

torchrun starts them (`util.processes.launched`). They meet in torch's store, before the configuration is read, and form
a group once the device is known: gloo for tensors of the CPU, NCCL for those of GPUs.

What ends one of them ends all. It writes why into the store, where a thread of each other process looks; that thread
sends a signal to its own process, whose handler raises `RankError` out of whatever is done there. So that signals get
through, nobody waits inside of torch: an operation is started and asked whether it is done. One that is not done in
time means that a rank hangs, one that fails that a rank died; who it is, the others see by its pulse in the store.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import count
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from atomrl.core.collective import Alone, Ranks
from atomrl.core.protocols import Collective
from atomrl.util.errors import RankError, UserError, first_line
from atomrl.util.processes import Launch, lightning_rank
from atomrl.util.progress import hidden

MEETING = 300.0
"""Seconds in which all processes must have started; torch tries twice where nobody keeps the store."""

LOOK = 0.5
"""Seconds between looks into the store."""

GRACE = 10.0
"""Seconds in which a process must end once another one has: one that hangs is killed then."""

AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""Variable, "True" where torchrun keeps the store; else rank 0 does."""

END = "end"
"""Key of the store: why the run ended."""

_joined = count()
"""A program may train several times: each has keys of its own."""


@dataclass(frozen=True)
class Ending:
    """What ended a run: the rank, what it said, and its exit code."""

    rank: int
    message: str
    code: int

    @classmethod
    def of(cls, rank: int, error: BaseException) -> Ending:
        """By an exception."""
        if isinstance(error, KeyboardInterrupt):
            return cls(rank, "interrupted", 130)
        if isinstance(error, SystemExit):
            return cls(rank, "stopped", error.code if isinstance(error.code, int) else 1)
        named = isinstance(error, UserError | RankError)
        message = str(error) if named else f"{type(error).__name__}: {first_line(error)}"
        return cls(rank, message, 2 if isinstance(error, UserError) else 1)


GONE = Ending(0, "", 1)
"""Of rank 0, where it took the store with it."""


class Crew:
    """All processes of a training, seen from one of them; a context around all that it does.

    An exception that leaves the context ends the other processes too. Where another one says the same already, it is
    replaced by a `RankError` that is quiet.

    Args:
        launch: which process this is.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._open = ExitStack()
        self._timeout = MEETING
        self._waits = 0
        self._found: Ending | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look_out, name="crew", daemon=True)

    def __enter__(self) -> Self:
        """Meet the others.

        Raises:
            UserError: they do not come.
        """
        with ExitStack() as opening:
            opening.enter_context(lightning_rank(self.launch.rank))
            if self.launch.size > 1:
                self._store: Store = _store(self.launch)
                opening.callback(signal.signal, signal.SIGUSR2, signal.signal(signal.SIGUSR2, self._told))
                if self.launch.rank:
                    opening.enter_context(_silence())
                self._thread.start()
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others what went wrong here, if something did before all were done."""
        with self._open:
            if self.launch.size > 1 and not self._left.is_set():
                try:
                    if error is not None:
                        self._tell(error)
                finally:
                    self._left.set()

    @contextmanager
    def connected(self, device: torch.device, timeout: float) -> Iterator[Collective]:
        """The collective of all ranks; at the end all wait for each other, and the crew parts.

        Args:
            device: of this process.
            timeout: seconds after which a rank that does not answer is given up.

        Raises:
            RankError: in here, whenever another process ended or does not answer.
        """
        if self.launch.size == 1:
            yield Alone()
            return
        self._timeout = timeout
        self._meet("ready")
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend,
            store=PrefixStore("group", self._store),
            rank=self.launch.rank,
            world_size=self.launch.size,
            timeout=timedelta(seconds=timeout + 60),  # ours comes first, and says more
        )
        collective = Ranks(self._finish)
        yield collective
        with _store_may_be_gone():  # of rank 0, which has seen all others arrive
            self._meet("done")  # a rank that closes its connections while another one reads from them breaks that one
        self._left.set()
        self._thread.join()
        dist.destroy_process_group()

    def _meet(self, what: str) -> None:
        """Wait in the store until all processes have come to the same point."""
        names = [f"{what}/{rank}" for rank in range(self.launch.size)]
        self._store.set(names[self.launch.rank], "")
        started = time.monotonic()
        while not self._store.check(names):
            self._require_nothing_found()
            if time.monotonic() - started > self._timeout:
                late = [rank for rank, name in enumerate(names) if not self._store.check([name])]
                raise self._given_up(late)
            time.sleep(0.02)

    def _finish(self, work: dist.Work) -> None:
        """Wait for an operation.

        Raises:
            RankError: it does not end, or another process has.
        """
        self._waits += 1
        started, pause = time.monotonic(), 1e-4
        while not work.is_completed():
            self._require_nothing_found()
            if time.monotonic() - started > self._timeout:
                pulses = self._pulses()
                raise self._given_up([rank for rank, (_, waits) in pulses.items() if waits < self._waits])
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        try:
            work.wait()
        except RuntimeError as error:
            raise self._lost() from error

    def _given_up(self, ranks: list[int]) -> RankError:
        """Of ranks that do not answer."""
        return RankError(
            f"{_named(ranks)} did not answer for {self._timeout:g} s (train.rank_timeout) and the run stopped: it "
            "hangs, or needs longer for its share, in which case raise train.rank_timeout"
        )

    def _lost(self) -> RankError:
        """Of an operation that failed: another process said why it ended, or died."""
        if self._found is None:
            self._found = self._read()
        if self._found is not None:
            return self._ended(self._found)
        before = self._pulses()
        time.sleep(4 * LOOK)
        dead = [rank for rank, (beats, _) in self._pulses().items() if beats <= before.get(rank, (beats, 0))[0]]
        return _died(dead)

    def _pulses(self) -> dict[int, tuple[int, int]]:
        """Of the other ranks: how often each looked into the store, and how many operations it has waited for."""
        others = [rank for rank in range(self.launch.size) if rank != self.launch.rank]
        try:
            return {rank: tuple(json.loads(self._store.get(f"pulse/{rank}"))) for rank in others}
        except dist.DistError:
            return {0: (0, 0)}  # who kept the store is gone

    def _require_nothing_found(self) -> None:
        """Raise RankError if another process has ended the run."""
        if self._found is not None:
            raise self._ended(self._found)

    def _ended(self, ending: Ending) -> RankError:
        """What this process says to what another one did; rank 0 alone repeats it."""
        if ending == GONE:
            return _died([0])
        return RankError(
            f"rank {ending.rank} ended the run: {ending.message}", ending.code, True, quiet=self.launch.rank > 0
        )

    def _tell(self, error: BaseException) -> None:
        """Say why the run ends, unless that was heard from another process.

        Raises:
            RankError: another one said the same first.
        """
        if isinstance(error, RankError) and self._found is not None:
            return
        mine = Ending.of(self.launch.rank, error)
        try:
            said = self._store.compare_set(END, "", json.dumps(asdict(mine)))
        except dist.DistError:
            return  # who kept the store is gone: nobody is left to be told
        first = Ending(**json.loads(said))
        if first != mine and first.message == mine.message:
            raise RankError(mine.message, mine.code, repeats=True, quiet=True) from error
        if self.launch.rank == 0 and os.environ.get(AGENT) != "True":
            time.sleep(3 * LOOK)  # the store is this process's own: let the others read it

    def _read(self) -> Ending | None:
        """What the store says about the end."""
        try:
            return Ending(**json.loads(self._store.get(END))) if self._store.check([END]) else None
        except dist.DistError:
            return GONE

    def _look_out(self) -> None:
        """The thread: show that this process lives, and see whether another has ended the run."""
        ending, beats = None, 0
        while ending is None or ending.rank == self.launch.rank:
            beats += 1
            with _store_may_be_gone():
                self._store.set(f"pulse/{self.launch.rank}", json.dumps([beats, self._waits]))
            ending = self._read()
            if self._left.wait(LOOK):
                return
        self._found = ending
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR2)
        if not self._left.wait(GRACE):
            os._exit(ending.code)

    def _told(self, *_: Any) -> None:
        """The signal's handler.

        Raises:
            RankError: unless an exception is being handled already: a checkpoint may be written because of it.
        """
        if sys.exc_info()[0] is None:
            self._require_nothing_found()


def _store(launch: Launch) -> Store:
    """Where the processes meet: torchrun keeps it, or rank 0.

    Raises:
        UserError: not all of them come.
    """
    try:
        store, _, _ = next(
            rendezvous("env://", rank=launch.rank, world_size=launch.size, timeout=timedelta(seconds=MEETING))
        )
    except (dist.DistError, ValueError) as error:
        raise UserError(
            f"rank {launch.rank} of {launch.size} did not meet the others at MASTER_ADDR={os.environ['MASTER_ADDR']}, "
            f"MASTER_PORT={os.environ['MASTER_PORT']} ({first_line(error)}): start all with torchrun"
        ) from error
    return PrefixStore(f"atomrl/{next(_joined)}", store)


@contextmanager
def _store_may_be_gone() -> Iterator[None]:
    """Around what is said to nobody then."""
    try:
        yield
    except dist.DistError:
        return


@contextmanager
def _silence() -> Iterator[None]:
    """Neither warnings nor progress bars: rank 0 shows them."""
    logger = logging.getLogger("atomrl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with hidden():
            yield
    finally:
        logger.setLevel(level)


def _died(ranks: list[int]) -> RankError:
    """Of ranks that said nothing."""
    return RankError(f"{_named(ranks)} died without a message, and the run stopped: was it killed, or out of memory?")


def _named(ranks: list[int]) -> str:
    """In a sentence."""
    return f"rank {', '.join(map(str, ranks))}" if ranks else "another rank"
