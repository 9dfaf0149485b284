"""A policy of the user's: what it raises, and an answer of another kind, is told by its own line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from atomrl.core.protocols import DiffusionPolicy, Draw
from atomrl.core.records import Prompts, Step, Structures, Transition
from atomrl.user_code.calling import calling
from atomrl.util.errors import UserError
from atomrl.util.own_frames import is_ours

T = TypeVar("T")


class OwnPolicy:
    """Asks a policy of the user's; implements `DiffusionPolicy`, and has whatever else that object has.

    Of an answer it looks at the kind alone, since it is asked at every step; `testing.check_policy` looks at the rest.

    Args:
        inner: theirs.
    """

    def __init__(self, inner: DiffusionPolicy) -> None:
        self.inner, self.name = inner, type(inner).__name__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _called(self, method: str) -> AbstractContextManager[None]:
        """Around a call of it."""
        return calling(f"the policy {self.name}", self.inner, f"asked for {method}")

    def _require(self, right: bool, method: str, what: str, found: object) -> None:
        """Raise UserError for an answer of another kind."""
        if not right:
            raise UserError(f"the policy {self.name}: {method} must return {what}, got {type(found).__name__}")

    def _one(self, kind: type[T], method: str, *arguments: Any) -> T:
        """An answer of a kind."""
        with self._called(method):
            found: T = getattr(self.inner, method)(*arguments)
            self._require(isinstance(found, kind), method, kind.__name__, found)
            return found

    def _pair(self, what: str, method: str, *arguments: Any) -> tuple[Tensor, Tensor]:
        """An answer of two tensors."""
        with self._called(method):
            found: Any = getattr(self.inner, method)(*arguments)
            pair = isinstance(found, tuple) and [isinstance(part, Tensor) for part in found] == [True, True]
            self._require(pair, method, f"two tensors, {what}", found)
            first, second = found
            return first, second

    def prior(self, prompts: Prompts, draw: Draw) -> tuple[Tensor, Tensor]:
        """Theirs, (B, N, D) and (B, N)."""
        return self._pair("z_T and its mask", "prior", prompts, draw)

    def transitions(self, num_steps: int) -> tuple[Transition, ...]:
        """Theirs."""
        with self._called("transitions"):
            found: Any = self.inner.transitions(num_steps)
            walk = isinstance(found, tuple | list) and all(isinstance(part, Transition) for part in found)
            self._require(walk, "transitions", "a tuple of Transition", found)
            return tuple(found)

    def step(self, latents: Tensor, mask: Tensor, transition: Transition, prompts: Prompts) -> Step:
        """Theirs."""
        return self._one(Step, "step", latents, mask, transition, prompts)

    def predict(self, latents: Tensor, mask: Tensor, t: Tensor, prompts: Prompts) -> Tensor:
        """Theirs, (B, N, D)."""
        return self._one(Tensor, "predict", latents, mask, t, prompts)

    def noise(self, normals: Tensor, mask: Tensor) -> Tensor:
        """Theirs, (B, N, D)."""
        return self._one(Tensor, "noise", normals, mask)

    def project(self, latents: Tensor, mask: Tensor) -> Tensor:
        """Theirs, (B, N, D)."""
        return self._one(Tensor, "project", latents, mask)

    def estimate(self, latents: Tensor, transition: Transition, prediction: Tensor) -> Tensor:
        """Theirs, (B, N, D)."""
        return self._one(Tensor, "estimate", latents, transition, prediction)

    def decode(self, latents: Tensor, mask: Tensor, prompts: Prompts, draw: Draw) -> Structures:
        """Theirs."""
        return self._one(Structures, "decode", latents, mask, prompts, draw)

    def read(self, clean: Tensor, mask: Tensor, prompts: Prompts) -> Structures:
        """Theirs."""
        return self._one(Structures, "read", clean, mask, prompts)

    def keep_reference(self) -> None:
        """Theirs."""
        with self._called("keep_reference"):
            self.inner.keep_reference()

    def reference(self) -> AbstractContextManager[None]:
        """Theirs."""
        return self._while("reference")

    def follow(self, decay: float) -> None:
        """Theirs."""
        with self._called("follow"):
            self.inner.follow(decay)

    def old(self) -> AbstractContextManager[None]:
        """Theirs."""
        return self._while("old")

    @contextmanager
    def _while(self, method: str) -> Iterator[None]:
        """While entered, another model of theirs answers."""
        with ExitStack() as stack:
            with self._called(method):
                stack.enter_context(getattr(self.inner, method)())
            yield

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Theirs, (B, 1, 1) each."""
        return self._pair("alpha_t and sigma_t", "levels", t)

    def forward_noise(self, clean: Tensor, mask: Tensor, t: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Theirs, (B, N, D) each."""
        return self._pair("z_t and the target", "forward_noise", clean, mask, t, normals)

    def trainable(self) -> nn.Module:
        """Theirs."""
        return self._one(nn.Module, "trainable")


def asked_policy(policy: DiffusionPolicy) -> DiffusionPolicy:
    """The policy as it is asked: the package's own as it is."""
    return policy if is_ours(policy) else OwnPolicy(policy)
