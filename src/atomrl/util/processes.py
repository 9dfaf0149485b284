"""Which process of how many this one is: a training is one process, whatever else the environment says.

Launchers leave variables behind that Lightning reads. A size above 1 means that there are other processes, and is
refused. A rank alone means nothing: it may come from a job script, a notebook or a container, and is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from atomrl.util.errors import UserError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""What Lightning takes for this process's rank, once, when it is imported; it then logs for rank 0 only."""

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE")
"""What torchrun, mpirun and jsrun say about the number of processes that they start."""

SHELLS = ("bash", "interactive")
"""Names of Slurm jobs that are a shell to type in: those that srun and salloc give, which Lightning knows, too."""


def check_one_process() -> None:
    """Refuse to be one of several processes: each would train the same for itself.

    Raises:
        UserError: the environment says that there are others.
    """
    for name in (*SIZES, *_sizes_of_slurm()):
        if (processes := os.environ.get(name, "")) not in {"", "1"}:
            raise UserError(
                f"{name}={processes}: a training is one process, and each of these would train the same thing for "
                "itself; start it once, without torchrun, mpirun or srun (or with srun --ntasks=1); seeds can run side "
                "by side as commands of their own"
            )


@contextmanager
def ranks_hidden() -> Iterator[None]:
    """The environment without ranks, for a command that may import Lightning, which dies of a rank like `RANK=`."""
    found = {name: os.environ.pop(name) for name in RANKS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(found)


@contextmanager
def one_process() -> Iterator[None]:
    """What Lightning does in here it does as the only process; for a Python program that has imported it already.

    Raises:
        UserError: see `check_one_process`.
    """
    check_one_process()
    from lightning.fabric.utilities import rank_zero  # noqa: PLC0415 - slow, and not for `--help`

    guard: Any = rank_zero.rank_zero_only  # a function with an attribute
    before, guard.rank = guard.rank, 0
    try:
        yield
    finally:
        guard.rank = before


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
