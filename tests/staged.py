"""Scores after the rule for failures, as a training hands them to an objective."""

import torch

from atomrl.core.collective import Alone
from atomrl.core.protocols import Collective
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.stages import FailedScores, SampleContext


def after_failures(
    table: RewardTable,
    group_ids: torch.Tensor,
    failed: str = "worst",
    over_batch: bool = False,
    active: torch.Tensor | None = None,
    collective: Collective | None = None,
) -> RewardTable:
    count = len(table)
    sizes = torch.ones(count, dtype=torch.int64)
    nothing = Structures(torch.ones(count, 1, dtype=torch.int64), torch.zeros(count, 1, 3), sizes[:, None] > 0)
    everyone = torch.ones(count, dtype=torch.bool) if active is None else active
    prompts = Prompts(0, 0, sizes, group_ids, torch.arange(count))
    return FailedScores(failed, over_batch)(table, SampleContext(prompts, nothing, everyone, collective or Alone()))
