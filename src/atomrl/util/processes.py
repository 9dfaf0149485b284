"""Which process of how many this one is.

A training is one process, or several that torchrun started: it says who is who in the environment, and nobody else is
believed. Launchers also leave variables behind. A rank alone means nothing, since it may come from a job script, a
notebook or a container, and is ignored. A size above 1 means that there are other processes; where these cannot find
each other it is refused, since each would train the same for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from atomrl.util.errors import UserError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""What Lightning takes for this process's rank, once, when it is imported; it then logs for rank 0 only."""

SIZE = "WORLD_SIZE"
"""How many processes torchrun started."""

OTHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE")
"""What mpirun and jsrun say about the number of processes that they start."""

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""What torchrun, and nobody else, sets."""

PLACES = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What torchrun says beside the number of processes: which one of all, which one of how many on its host."""

MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Where they find each other."""

SHELLS = ("bash", "interactive")
"""Names of Slurm jobs that are a shell to type in: those that srun and salloc give, which Lightning knows, too."""


@dataclass(frozen=True)
class Launch:
    """Which process this is.

    Attributes:
        rank: its number.
        size: how many there are.
        local_rank: its number on this host.
        local_size: how many there are on this host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def share(self, count: int) -> int:
        """What this process gets of something that those of a host share out, at least 1."""
        return max(1, count // self.local_size + (self.local_rank < count % self.local_size))


ALONE = Launch()


def launched() -> Launch:
    """Which process this is, by torchrun's variables.

    Raises:
        UserError: there are others, and they cannot find each other.
    """
    environment = os.environ
    if environment.get(SIZE, "") in {"", "1"}:
        if TORCHRUN not in environment:
            _refuse_tasks()
        return ALONE
    found = {name: environment.get(name, "") for name in (SIZE, *PLACES)}
    if missing := [name for name in (*PLACES, *MEETING) if not environment.get(name)]:
        raise UserError(
            f"{SIZE}={found[SIZE]}, but {', '.join(missing)} not set: start several processes with torchrun "
            f"--nproc_per_node={found[SIZE]}, which sets all of these; for a single one unset {SIZE}"
        )
    size, *places = (int(text) if text.isdecimal() else -1 for text in found.values())
    rank, local_rank, local_size = places
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        said = ", ".join(f"{name}={text}" for name, text in found.items())
        raise UserError(f"{said}: these cannot be numbers of processes; start them with torchrun, which sets all")
    return Launch(rank, size, local_rank, local_size)


def check_one_process() -> None:
    """Refuse to be one of several processes, for what does not know how to share its work.

    Raises:
        UserError: the environment says that there are others.
    """
    if (size := os.environ.get(SIZE, "")) not in {"", "1"}:
        raise UserError(
            f"{SIZE}={size}: a pre-training is one process, and each of these would train the same thing for itself; "
            "start it once, without torchrun"
        )
    if TORCHRUN not in os.environ:
        _refuse_tasks()


@contextmanager
def ranks_hidden() -> Iterator[None]:
    """The environment without ranks, for a command that may import Lightning, which dies of a rank like `RANK=`."""
    found = {name: os.environ.pop(name) for name in RANKS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(found)


@contextmanager
def own_launch() -> Iterator[Launch]:
    """Which process this is; in here the environment has no ranks, see `ranks_hidden`.

    Raises:
        UserError: as `launched`.
    """
    launch = launched()
    with ranks_hidden():
        yield launch


@contextmanager
def lightning_rank(rank: int) -> Iterator[None]:
    """What Lightning does in here it does as the process of this number, whatever it read when it was imported."""
    from lightning.fabric.utilities import rank_zero  # noqa: PLC0415 - slow, and not for `--help`

    guard: Any = rank_zero.rank_zero_only  # a function with an attribute
    before, guard.rank = guard.rank, rank
    try:
        yield
    finally:
        guard.rank = before


@contextmanager
def one_process() -> Iterator[None]:
    """What Lightning does in here it does as the only process.

    Raises:
        UserError: see `check_one_process`.
    """
    check_one_process()
    with lightning_rank(0):
        yield


def _refuse_tasks() -> None:
    """Raise UserError in one of several processes of srun, mpirun or jsrun."""
    for name in (*OTHER_SIZES, *_sizes_of_slurm()):
        if (processes := os.environ.get(name, "")) not in {"", "1"}:
            raise UserError(
                f"{name}={processes}: these processes cannot find each other, and each would train the same thing for "
                "itself; to train together start one torchrun per host (examples/several_processes.slurm), for one "
                "run per seed a job array, an `srun --ntasks=1` each, or `torchrun --standalone --nproc_per_node=1`"
            )


def _sizes_of_slurm() -> tuple[str, ...]:
    """The variable with the number of processes that srun started, if it did.

    SLURM_NTASKS alone does not tell: a job script has the job's, and is one process all the same, number 0. So is the
    shell of `srun --pty`; what is started from it with srun has other numbers, too.
    """
    environment = os.environ
    first = environment.get("SLURM_PROCID", "0") in {"", "0"}
    shell = environment.get("SLURM_JOB_NAME") in SHELLS or "SLURM_PTY_PORT" in environment
    if first and shell:
        return ()
    if "SLURM_STEP_NUM_TASKS" in environment:
        return ("SLURM_STEP_NUM_TASKS",)
    return () if first else ("SLURM_NTASKS",)
