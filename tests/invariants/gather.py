"""One rank that gathers rows of unequal number; rank 0 saves what it got."""

import sys

import torch
import torch.distributed as dist

from atomrl.core.collective import current


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    rows = torch.full((rank + 1, 2), float(rank))
    gathered = current().gather(rows)
    if rank == 0:
        torch.save(gathered, sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
