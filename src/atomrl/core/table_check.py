"""What keeps an answer from being the scores of some samples, in words: for checks, and for a reward of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from atomrl.core.records import RewardTable, Structures


def misshapen(answer: Any, structures: Structures) -> str | None:
    """What makes an answer no table of scores, as a sentence that begins with the field; None: nothing does.

    Args:
        answer: that `Reward.score` gave.
        structures: that it was asked for, B.
    """
    samples, wide = len(structures), structures.mask.shape
    if not isinstance(answer, RewardTable):
        return f"score gave {type(answer).__name__} for {samples} samples; return a RewardTable of them"
    reasons = answer.reasons
    if not isinstance(reasons, tuple) or not all(one is None or (isinstance(one, str) and one) for one in reasons):
        return f"reasons must be a tuple with a text or None for each sample, got {reasons!r}"
    if len(reasons) != samples:
        return f"score gave {len(reasons)} rows for {samples} samples; return a RewardTable of them"
    for field, axes in (("channels", (samples,)), ("diagnostics", (samples,)), ("fields", tuple(wide))):
        columns = getattr(answer, field)
        if not isinstance(columns, Mapping):
            return f"{field} must be {{name: tensor}}, got {type(columns).__name__}"
        for name, values in columns.items():
            if wrong := _no_column(values, axes, exact=field != "fields"):
                return f"{field[:-1]} {name} {wrong}"
    return None if answer.channels else "score gave a table without a channel"


def unexplained(table: RewardTable) -> str | None:
    """The channel of a table in which a sample has no finite score and no reason, as a sentence; None: there is none.

    What is withheld on purpose needs no reason.
    """
    silent = torch.tensor([reason is None for reason in table.reasons])
    for name, values in table.channels.items():
        if bool((silent & ~(values.isfinite() | table.left_out(name)).cpu()).any()):
            return f"channel {name} has NaN or infinity without a reason"
    return None


def unusual(values: Tensor) -> str | None:
    """What a tensor is instead of a plain one, whose numbers can be read one by one; None: it is plain."""
    if values.is_nested:
        return "a nested tensor"
    if values.is_meta:
        return "a tensor without data"
    if values.is_quantized:
        return "a quantized tensor"
    return None if values.layout == torch.strided else "a sparse tensor"


def _no_column(values: Any, axes: tuple[int, ...], exact: bool) -> str | None:
    """What keeps a value from being numbers of samples, as the end of a sentence; `exact`: it has no further axes."""
    axes_said = ", ".join(map(str, axes)) + ("," if len(axes) == 1 else "")
    wanted = f"must be a tensor of real numbers, ({axes_said})" if exact else f"must be a tensor, ({axes_said}, ...)"
    if not isinstance(values, Tensor):
        return f"is {type(values).__name__}, and {wanted}"
    if kind := unusual(values):
        return f"is {kind}, and {wanted}"
    if values.is_complex():
        return f"holds complex numbers, and {wanted}"
    shape = tuple(values.shape)
    fits = shape == axes if exact else shape[: len(axes)] == axes
    return None if fits else f"has shape {shape}, and {wanted}"
