"""Relaxing some samples of an evaluation: the same places in every column, in lots that a stopped evaluation keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from atomrl.core.records import Structures
from atomrl.evaluation.kept_samples import KeptBatches, Noted
from atomrl.workers.executor import PASSING

RELAXED_AT_ONCE = 50
"""Samples whose relaxations are kept together: some minutes of work, all that a stop can cost."""
CHOICE_SEED = 20260101
"""Of the choice of samples that are relaxed."""


def chosen_rows(samples: int, count: int) -> Tensor:
    """Which of so many samples are relaxed, in order, (at most `count`,) int64."""
    generator = torch.Generator().manual_seed(CHOICE_SEED)
    return torch.randperm(samples, generator=generator)[:count].sort().values


def part_of_the_samples(count: int) -> str:
    """How many are chosen, in words; the same of every column, also of one with fewer samples."""
    return f"at most {count} of the main table's samples"


def relax_in_lots(structures: Structures, relax: Callable[[Structures], Noted], kept: KeptBatches | None) -> Noted:
    """What samples are after a relaxation, each with a note on why that is no minimum, or None.

    Args:
        structures: all of them.
        relax: does it for a lot.
        kept: the lots of an evaluation that was stopped; what is new is added. A lot in which a worker was lost is not
            kept, but tried again.
    """
    parts: list[Noted] = []
    for index, lot in enumerate(torch.arange(len(structures)).split(RELAXED_AT_ONCE)):
        fresh = partial(relax, structures[lot])
        parts.append(fresh() if kept is None else kept.get_noted(index, fresh, PASSING))
    notes = tuple(chain.from_iterable(notes for _, notes in parts))
    return Structures.concatenate([part for part, _ in parts]), notes
