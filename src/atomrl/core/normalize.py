"""The four ways to bring rewards to a common scale, over a batch or inside groups.

| name | result |
|---|---|
| `std` | (x - mean) / (sample std + eps) |
| `norm` | (x - min) / (max - min + eps), in [0, 1] |
| `subtract_mean` | x - mean |
| `clip` | x clamped to `clip_range` |

Where the spread (sample std, or max - min for `norm`) is below eps there is nothing to tell samples apart by, and the
result is 0. `clip` looks at no spread. `group_advantages` is the published form of FED-GRPO, with the population's std.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from atomrl.core.advantages import Groups
from atomrl.util.errors import UserError

NORMALIZE_FNS = ("std", "norm", "subtract_mean", "clip")
CLIP_RANGE = (-1.0, 1.0)
EPSILON = 1e-8


def require_number(name: str, value: object) -> None:
    """Raise if a value is not a finite real number: a text, None, True, NaN.

    Raises:
        UserError: it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, got {value!r}")


def check_normalization(normalize_fn: str | None, eps: float, clip_range: tuple[float, float]) -> None:
    """Raise UserError for a normalisation that does not exist.

    Raises:
        UserError: an unknown name, an eps that is negative or no finite number, or an empty clip range.
    """
    if normalize_fn is not None and normalize_fn not in NORMALIZE_FNS:
        raise UserError(f"normalize_fn is one of {', '.join(NORMALIZE_FNS)}, or null; got {normalize_fn!r}")
    require_number("eps of a normalisation", eps)
    if not eps >= 0:
        raise UserError(f"eps of a normalisation must be 0 or more, got {eps}")
    if not isinstance(clip_range, Sequence) or isinstance(clip_range, str) or len(clip_range) != 2:
        raise UserError(f"clip_range is a lower and a higher bound, got {clip_range!r}")
    for end in clip_range:
        require_number("each end of clip_range", end)
    if not clip_range[0] < clip_range[1]:
        raise UserError(f"clip_range is a lower and a higher bound, got {list(clip_range)}")


def normalize(
    values: Tensor,
    normalize_fn: str | None,
    *,
    groups: Groups | None = None,
    eps: float = 1e-4,
    clip_range: tuple[float, float] = CLIP_RANGE,
) -> Tensor:
    """Rewards on a common scale, (B,). NaN stays NaN and does not enter mean, std, min or max.

    Args:
        values: (B,).
        normalize_fn: see the module's table; None: values as they are.
        groups: inside which to normalise; None: the whole batch.
        eps: added to a denominator; where the spread is no larger, the result is 0.
        clip_range: of `clip`.

    Raises:
        UserError: as `check_normalization`.
    """
    check_normalization(normalize_fn, eps, clip_range)
    if normalize_fn is None:
        return values
    if normalize_fn == "clip":
        return values.clamp(*clip_range)
    groups = groups or Groups.whole(values)
    known = values.isfinite()
    if normalize_fn == "norm":
        lowest = groups.smallest(torch.where(known, values, torch.inf))
        spread = groups.largest(torch.where(known, values, -torch.inf)) - lowest
        scaled = (values - lowest[groups.index]) / (spread + eps)[groups.index]
    else:
        count = groups.sum(known.to(values.dtype))
        mean = groups.sum(torch.where(known, values, 0.0)) / count.clamp(min=1)
        scaled = values - mean[groups.index]
        squares = groups.sum(torch.where(known, scaled, 0.0).square())
        spread = (squares / (count - 1).clamp(min=1)).sqrt()
        if normalize_fn == "std":
            scaled = scaled / (spread + eps)[groups.index]
    return torch.where(known & (spread <= eps)[groups.index], 0.0, scaled)


def group_advantages(rewards: Tensor, active: Tensor, groups: Groups) -> Tensor:
    """(r - mean) / (population std + 1e-8) in each group over the active samples, (B,); 0 for the others.

    A group of one, or of equal rewards, has zero advantage.
    """
    weight = active.to(rewards.dtype)
    count = groups.sum(weight).clamp(min=1)
    mean = groups.sum(rewards * weight) / count
    centred = (rewards - mean[groups.index]) * weight
    std = (groups.sum(centred.square()) / count).sqrt()
    lowest = groups.smallest(torch.where(active, rewards, torch.inf))
    highest = groups.largest(torch.where(active, rewards, -torch.inf))
    spread = (highest > lowest)[groups.index]
    return torch.where(spread, centred / (std[groups.index] + EPSILON), 0.0)


def group_ranks(rewards: Tensor, active: Tensor, groups: Groups) -> Tensor:
    """Place of each active sample's reward in its group, from 0 for the lowest, equal ones sharing the mean, (B,).

    So that one reward far from all others does not make these alike. 0 for samples that are not active.
    """
    rows = active.nonzero().squeeze(1)
    rows = rows[rewards[rows].argsort(stable=True)]
    rows = rows[groups.index[rows].argsort(stable=True)]  # by group, then by reward
    group, value = groups.index[rows], rewards[rows]
    begins = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    begins[1:] = (group.diff() != 0) | (value.diff() != 0)
    tied = begins.cumsum(0) - 1
    counts = torch.bincount(tied).to(rewards.dtype)
    last = counts.cumsum(0)
    middle = (last - (counts + 1) / 2)[tied]
    first = torch.cumsum(torch.bincount(group, minlength=groups.count), 0)
    start = torch.cat([first.new_zeros(1), first[:-1]])[group].to(rewards.dtype)
    ranks = torch.zeros_like(rewards)
    ranks[rows] = middle - start
    return ranks
