"""Sums over the processes of a run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from atomrl.core.protocols import Collective


class Alone:
    """The collective of a single process."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


class Ranks:
    """The collective of all processes of torch's default group."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks; every rank passes the same shape."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def gather(self, tensor: Tensor) -> Tensor:
        """Rows (B, ...) of all ranks, in the order of ranks; B may differ between them, the other axes may not."""
        ranks = range(dist.get_world_size())
        counts = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in ranks]
        dist.all_gather(counts, torch.tensor([len(tensor)], device=tensor.device))
        sizes = [int(count) for count in counts]
        longest = max(sizes)
        padded = [tensor.new_empty(longest, *tensor.shape[1:]) for _ in ranks]
        mine = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
        dist.all_gather(padded, mine)
        return torch.cat([rows[:size] for rows, size in zip(padded, sizes, strict=True)])


def current() -> Collective:
    """All ranks where torch.distributed runs, else this process alone."""
    return Ranks() if dist.is_available() and dist.is_initialized() else Alone()
