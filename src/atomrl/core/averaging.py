"""Exponential moving averages of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def move_average(decay: float, averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
    """Move averaged weights towards the current ones in place; the decay warms up, so that the start is forgotten."""
    count = float(updates)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + count) / (10 + count)))


@contextmanager
def with_weights_of(other: nn.Module, model: nn.Module) -> Iterator[None]:
    """While entered, a model has the weights of another one like it; then its own again, bit for bit."""
    pairs = [
        *zip(model.parameters(), other.parameters(), strict=True),
        *zip(model.buffers(), other.buffers(), strict=True),
    ]

    def exchange() -> None:
        for own, others in pairs:
            own.data, others.data = others.data, own.data

    exchange()
    try:
        yield
    finally:
        exchange()
