"""A policy's frozen copies: of its initial model, and of an old policy that follows it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class WithReference(nn.Module, Generic[M]):
    """Holds the model that is trained and, once asked for, frozen copies of it.

    Attributes:
        current: the model that is trained.
        initial: how it began, or None before `keep_reference`.
        followed: the old policy's model, or None before `follow`.
    """

    current: M
    initial: M | None
    followed: M | None

    def __init__(self, model: M) -> None:
        super().__init__()
        self.current = model
        self.initial = None
        self.followed = None
        self._answers = "current"

    def keep_reference(self) -> None:
        """Copy the model as it is now; call once, before training."""
        self.initial = _frozen(self.current)

    def follow(self, decay: float) -> None:
        """Move the old policy: old <- decay old + (1 - decay) current; the first call copies the current model."""
        if self.followed is None:
            self.followed = _frozen(self.current)
            return
        with torch.no_grad():
            for old, new in zip(self.followed.parameters(), self.current.parameters(), strict=True):
                if old is not new:
                    old.lerp_(new, 1 - decay)
            for kept, buffer in zip(self.followed.buffers(), self.current.buffers(), strict=True):
                kept.copy_(buffer)

    @property
    def answering(self) -> M:
        """The model that answers now: the initial one inside `reference()`, the followed one inside `old()`."""
        if self._answers == "initial":
            if self.initial is None:
                raise RuntimeError("no reference model is kept: call keep_reference() before training")
            return self.initial
        if self._answers == "followed":
            if self.followed is None:
                raise RuntimeError("no old policy is kept: call follow() before sampling")
            return self.followed
        return self.current

    def reference(self) -> AbstractContextManager[None]:
        """While entered, the initial model answers."""
        return self._answer_as("initial")

    def old(self) -> AbstractContextManager[None]:
        """While entered, the old policy answers."""
        return self._answer_as("followed")

    @contextmanager
    def _answer_as(self, name: str) -> Iterator[None]:
        """While entered, this model answers."""
        before, self._answers = self._answers, name
        try:
            yield
        finally:
            self._answers = before


def _frozen(model: M) -> M:
    """A copy that is not trained; it shares what is not trained in the model either, the weights beside adapters."""
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()
