"""A policy's frozen copy of its initial model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


class WithReference(nn.Module, Generic[M]):
    """Holds the model that is trained and, once asked for, a frozen copy of how it began.

    Attributes:
        current: the model that is trained.
        initial: its frozen copy, or None before `keep_reference`.
    """

    current: M
    initial: M | None

    def __init__(self, model: M) -> None:
        super().__init__()
        self.current = model
        self.initial = None
        self._answering_initial = False

    def keep_reference(self) -> None:
        """Copy the model as it is now; call once, before training."""
        self.initial = copy.deepcopy(self.current).requires_grad_(False).eval()

    @property
    def answering(self) -> M:
        """The model that answers now: the initial one inside `reference()`, else the current one."""
        if not self._answering_initial:
            return self.current
        if self.initial is None:
            raise RuntimeError("no reference model is kept: call keep_reference() before training")
        return self.initial

    @contextmanager
    def reference(self) -> Iterator[None]:
        """While entered, the initial model answers."""
        self._answering_initial = True
        try:
            yield
        finally:
            self._answering_initial = False
