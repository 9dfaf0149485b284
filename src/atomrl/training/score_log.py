"""A reward table as numbers for the log."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from atomrl.core.records import RewardTable, Stats
from atomrl.rewards.force_energy_config import FORCE_FIELD
from atomrl.util.errors import UserError
from atomrl.workers.executor import EXCEPTION


def summarise(table: RewardTable) -> Stats:
    """Means and spreads of a table's channels and diagnostics over finite values, failures by reason, calls and times.

    Scores that a rule for failures gave are left out.
    """
    log: dict[str, float] = {}
    table = table.to(torch.device("cpu"))
    for name, values in table.scored.items():
        known = values[torch.isfinite(values)]
        log |= {f"{name}_reward_{kind}": number for kind, number in _moments(known).items()}
    for name, values in table.diagnostics.items():
        known = values[torch.isfinite(values)]
        log[name] = float(known.mean()) if len(known) else math.nan
    if "reward" not in log:
        total = torch.stack(list(table.scored.values())).sum(0)
        log["reward"] = float(total[torch.isfinite(total)].mean()) if bool(torch.isfinite(total).any()) else math.nan
    log["failed"] = float(sum(reason is not None for reason in table.reasons))
    kinds = Counter(reason.partition(":")[0] for reason in table.reasons if reason is not None)
    log |= {f"failed_{kind}": float(count) for kind, count in kinds.items()}
    if FORCE_FIELD in table.seconds:
        log[f"{FORCE_FIELD}_calls"] = float(len(table))
    return log | {f"seconds_reward_{part}": seconds for part, seconds in table.seconds.items()}


def require_scores(table: RewardTable, iteration: int) -> None:
    """Refuse to go on after a first iteration that has no score for any sample, for some because of exceptions.

    Later on the same is a failure like any other, which the log counts.

    Raises:
        UserError: it has none.
    """
    raised = [reason for reason in table.reasons if reason is not None and reason.startswith(EXCEPTION)]
    if iteration or not raised or None in table.reasons:
        return
    raise UserError(
        f"none of the {len(table)} samples of the first iteration could be scored: {len(raised)} ended in an "
        f"exception, the first in {raised[0].removeprefix(EXCEPTION)}"
    )


def count_potentials(table: RewardTable) -> dict[str, Tensor]:
    """How many scores of z0_pred there are, and how many of these failed, (); nothing where there are none."""
    if not table.potentials:
        return {}
    reasons = [reason for scores in table.potentials.values() for reason in scores.reasons]
    failed = sum(reason is not None for reason in reasons)
    return {"potentials": torch.tensor(len(reasons)), "failed_potentials": torch.tensor(failed)}


def _moments(values: Tensor) -> dict[str, float]:
    """Mean, population standard deviation, smallest and largest; NaN of nothing."""
    if not len(values):
        return dict.fromkeys(("mean", "std", "min", "max"), math.nan)
    return {
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "min": float(values.min()),
        "max": float(values.max()),
    }
