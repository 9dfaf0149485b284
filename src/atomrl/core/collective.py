"""Sums over the processes of a run, its ranks, and what the first of them says to all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from atomrl.core.protocols import Collective

T = TypeVar("T")


class Alone:
    """The collective of a single process."""

    rank, size = 0, 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def of_first(self, value: T) -> T:
        """The value itself."""
        return value


def wait(work: dist.Work) -> None:
    """Wait for the other ranks as long as torch does."""
    work.wait()


class Ranks:
    """The collective of all processes of torch's default group.

    Args:
        finish: waits for an operation that was started.
    """

    def __init__(self, finish: Callable[[dist.Work], None] = wait) -> None:
        self.rank, self.size, self._finish = dist.get_rank(), dist.get_world_size(), finish

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks; every rank passes the same shape."""
        total = tensor.clone()
        self._finish(dist.all_reduce(total, async_op=True))
        return total

    def gather(self, tensor: Tensor) -> Tensor:
        """Rows (B, ...) of all ranks, in the order of ranks; B may differ between them, the other axes may not."""
        counts = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(self.size)]
        self._finish(dist.all_gather(counts, torch.tensor([len(tensor)], device=tensor.device), async_op=True))
        sizes = [int(count) for count in counts]
        longest = max(sizes)
        padded = [tensor.new_empty(longest, *tensor.shape[1:]) for _ in range(self.size)]
        mine = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
        self._finish(dist.all_gather(padded, mine, async_op=True))
        return torch.cat([rows[:size] for rows, size in zip(padded, sizes, strict=True)])

    def of_first(self, value: T) -> T:
        """What rank 0 passes, on every rank; it travels as JSON, for which a tuple is a list."""
        text = bytearray(b"" if self.rank else json.dumps(value).encode())
        said = self.gather(torch.frombuffer(text, dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8))
        answer: T = json.loads(said.numpy().tobytes())
        return answer


def current() -> Collective:
    """All ranks where torch.distributed runs, else this process alone."""
    return Ranks() if dist.is_available() and dist.is_initialized() else Alone()


def any_rank(flag: bool, collective: Collective) -> bool:
    """Whether something is true on any rank; all of them ask."""
    return bool(collective.sum(torch.tensor([int(flag)])))
