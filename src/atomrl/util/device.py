"""Which device networks run on, and with how many threads."""

from __future__ import annotations

import torch

from atomrl.util.errors import UserError
from atomrl.util.processes import ALONE, Launch


def choose_device(name: str, launch: Launch = ALONE) -> torch.device:
    """`auto` is a GPU where there is one; each of several processes takes its own.

    Raises:
        UserError: `cuda` is asked for and torch sees no GPU, or fewer than there are processes on this host.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch sees no GPU: use device=auto or install a CUDA build of torch")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if launch.size == 1:
        return torch.device("cuda")
    if torch.cuda.device_count() < launch.local_size:
        raise UserError(
            f"{launch.local_size} processes on a host with {torch.cuda.device_count()} GPU: start one for each GPU "
            "(--nproc_per_node), or set device=cpu"
        )
    return torch.device("cuda", launch.local_rank)


def use_threads(number: int | None) -> None:
    """Let torch compute with so many threads on a CPU; None leaves what it chose."""
    if number is not None:
        torch.set_num_threads(number)
