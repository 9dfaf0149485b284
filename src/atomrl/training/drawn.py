"""The samples of an iteration with what was said of each, for everything that looks at them afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from atomrl.core.batch import ROWS, Batch
from atomrl.core.iteration import Iteration
from atomrl.core.protocols import Collective
from atomrl.core.records import Prompts, RewardTable, Structures


@dataclass(frozen=True)
class Drawn(Batch):
    """B samples of all ranks, in the order of their ids.

    Attributes:
        prompts: sizes, groups and ids.
        structures: the samples.
        table: their scores after all stages, without what only the update reads.
        advantages: what their steps were reinforced with, (B,).
    """

    prompts: Annotated[Prompts, ROWS]
    structures: Annotated[Structures, ROWS]
    table: Annotated[RewardTable, ROWS]
    advantages: Annotated[Tensor, ROWS]

    def __len__(self) -> int:
        return len(self.prompts)


def drawn_by_all(done: Iteration, collective: Collective) -> Drawn:
    """What all ranks drew in an iteration."""
    trajectory = done.trajectory
    table = replace(done.table, fields={}, seconds={}, potentials={}, rewards_ts={})
    mine = Drawn(trajectory.prompts, trajectory.structures, table, done.advantages.total)
    everyone = mine.gather(collective)
    return everyone[everyone.prompts.sample_ids.argsort()]
