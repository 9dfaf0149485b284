"""Exponential moving averages of weights."""

from __future__ import annotations

import torch
from torch import Tensor


def move_average(decay: float, averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
    """Move averaged weights towards the current ones in place; the decay warms up, so that the start is forgotten."""
    count = float(updates)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + count) / (10 + count)))
