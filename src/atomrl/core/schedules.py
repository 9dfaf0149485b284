"""Learning-rate schedules as factors of the peak rate."""

from __future__ import annotations

import math

from torch.optim.lr_scheduler import LambdaLR


def lr_factor(
    step: int,
    kind: str,
    warmup: int,
    total: int,
    min_ratio: float,
    decay_fraction: float,
    decay_shape: str = "linear",
) -> float:
    """Factor at a step.

    Args:
        step: from 0.
        kind: `constant`, `cosine` (falls from the end of the warm-up) or `wsd` (warm-up, stable, decay).
        warmup: steps of linear warm-up.
        total: steps of the schedule; the factor stays at its last value after them.
        min_ratio: the factor's lower end after the warm-up.
        decay_fraction: of `wsd`: the part over which the rate falls, of all steps or, by a cosine, of those after the
            warm-up.
        decay_shape: of `wsd`: how it falls, `linear` or by half a `cosine`.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    if kind == "wsd":
        by_cosine = decay_shape == "cosine"
        falling = decay_fraction * (total - warmup if by_cosine else total)
        left = min(1.0, max(0.0, (total - step) / max(1.0, falling)))
        if by_cosine:
            left = 0.5 * (1 - math.cos(math.pi * left))
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


def adopt(scheduler: LambdaLR, configured: LambdaLR) -> None:
    """Go on with the settings of another scheduler and its optimizer, at the place where this one is.

    A checkpoint holds the rate, betas and decay of its own run, and the rate that its own schedule gave last (0 at its
    end). A run that is continued takes from it how far it came, and all else from its configuration.

    Args:
        scheduler: restored from a checkpoint; changed in place, and so is its optimizer.
        configured: made as for a run that starts, over the same parameters.
    """
    for group, fresh in zip(scheduler.optimizer.param_groups, configured.optimizer.param_groups, strict=True):
        group.update({name: value for name, value in fresh.items() if name != "params"})
    scheduler.base_lrs, scheduler.lr_lambdas = configured.base_lrs, configured.lr_lambdas
    rates = [
        peak * factor(scheduler.last_epoch)
        for peak, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates  # what `get_last_lr` says
