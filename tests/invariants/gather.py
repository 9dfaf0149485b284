"""One rank that gathers rows of unequal number, and a record; rank 0 saves what it got."""

import sys

import torch
import torch.distributed as dist
from leave import leave

from atomrl.core.collective import current
from atomrl.core.records import RewardTable


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    rows = torch.full((rank + 1, 2), float(rank))
    gathered = current().gather(rows)
    table = RewardTable(
        channels={"rank": rows[:, 0].double()},
        reasons=tuple(None if row == rank else f"Grund {'ü' * rank}" for row in range(rank + 1)),
        potentials={3: RewardTable({"rank": rows[:, 1].double()}, (None,) * len(rows))},
        fields={"forces": torch.full((rank + 1, rank + 1, 3), float(rank))},
        filled={"rank": rows[:, 0] > 0},
        seconds={"scoring": 1.0},
    )
    everyone = table.gather(current())
    if rank == 0:
        torch.save({"rows": gathered, **vars(everyone), "potentials": everyone.potentials[3].channels}, sys.argv[1])
    leave()


if __name__ == "__main__":
    main()
