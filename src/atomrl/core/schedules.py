"""Learning-rate schedules as factors of the peak rate."""

from __future__ import annotations

import math

from torch.optim.lr_scheduler import LambdaLR


def lr_factor(step: int, kind: str, warmup: int, total: int, min_ratio: float, decay_fraction: float) -> float:
    """Factor at a step.

    Args:
        step: from 0.
        kind: `constant`, `cosine` (falls from the end of the warm-up) or `wsd` (warm-up, stable, linear decay).
        warmup: steps of linear warm-up.
        total: steps of the schedule; the factor stays at its last value after them.
        min_ratio: the factor's lower end after the warm-up.
        decay_fraction: of `wsd`: the part of `total` over which the rate falls.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    if kind == "wsd":
        left = min(1.0, max(0.0, (total - step) / max(1.0, decay_fraction * total)))
        return min_ratio + (1 - min_ratio) * left
    raise ValueError(f"scheduler is constant, cosine or wsd, got {kind!r}")


def tail_factor(step: int, warmup: int, total: int, decay: int) -> float:
    """Factor at a step of a pre-training: linear warm-up, constant, then a cosine to 0.

    Args:
        step: from 0.
        warmup: steps of the warm-up; 0 and 1: none.
        total: steps of the run.
        decay: how many of its last steps the rate falls over, all of them if it has fewer; 0 and 1: none.
    """
    left = min(1.0, max(0, total - step) / max(1, min(decay, total)))
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 - math.cos(math.pi * left))


def follow(scheduler: LambdaLR) -> None:
    """Set the learning rates to what the schedule says now.

    A checkpoint holds the rate that its own schedule gave; a run that is continued with a longer schedule must not
    start with it (at the end of a schedule it is 0).
    """
    for group, peak, factor in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = peak * factor(scheduler.last_epoch)
