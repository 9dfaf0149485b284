"""A training is one process: what says that there are more is refused, what only looks like it is ignored."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from lightning.fabric.plugins import ClusterEnvironment

PROCESSES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE")
"""Variables in which torchrun, srun, mpirun and jsrun tell each process that they started how many there are."""


def check_one_process() -> None:
    """Refuse to be one of several processes: each would train the same for itself.

    Raises:
        UserError: the environment says that there are others.
    """
    for name in PROCESSES:
        if (processes := os.environ.get(name, "1")) != "1":
            raise UserError(
                f"{name}={processes}: a training is one process, and each of these would train the same thing for "
                "itself; start it without torchrun, srun or mpirun, once (seeds can run side by side as commands of "
                "their own)"
            )


def alone() -> ClusterEnvironment:
    """The environment that Lightning's `Trainer` gets as a plugin: this process is the only one, and its rank is 0.

    Lightning reads RANK, LOCAL_RANK or SLURM_PROCID when it is imported. A shell inside a batch job, or one that an
    earlier launch left behind, may have any of them set, and with a rank above 0 Lightning's loggers write nothing.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: PLC0415 - seconds, at start
    from lightning.pytorch.utilities import rank_zero_only  # noqa: PLC0415

    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # Lightning reads it off the function
    return LightningEnvironment()
