"""The seams of the package: what the core needs of a model, a reward, a force field and an objective.

Each is a small `Protocol`; a new backbone, reward, force field or objective is one file that implements one of them.
`atomrl.testing` checks an implementation for conformance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from atomrl.core.conditioning import Conditioning
from atomrl.core.records import Prompts, RewardTable, Stats, Step, Structures, Transition

T = TypeVar("T")

Draw = Callable[[int], Tensor]
"""Standard normals for a batch: `draw(features)` -> (B, N, features), keyed by sample (or group) and purpose."""


@runtime_checkable
class DiffusionPolicy(Protocol):
    """A reverse diffusion whose steps are Gaussian. B samples, N atoms (padded), D latent features."""

    def prior(self, prompts: Prompts, draw: Draw) -> tuple[Tensor, Tensor]:
        """Initial latent z_T (B, N, D) and node mask (B, N) in the latents' dtype."""

    def transitions(self, num_steps: int) -> tuple[Transition, ...]:
        """The walk from noise to sample in `num_steps` steps."""

    def step(self, latents: Tensor, mask: Tensor, transition: Transition, prompts: Prompts) -> Step:
        """Distribution of z_s given z_t (B, N, D). Guidance belongs in here."""

    def predict(self, latents: Tensor, mask: Tensor, t: Tensor, prompts: Prompts) -> Tensor:
        """The network's prediction for z_t (B, N, D) at a time t (B,) of each sample's own, (B, N, D).

        Its target is what `forward_noise` answers beside z_t; differentiable. Guidance belongs in here too.
        """

    def noise(self, normals: Tensor, mask: Tensor) -> Tensor:
        """Noise of the policy's space out of standard normals, both (B, N, D)."""

    def project(self, latents: Tensor, mask: Tensor) -> Tensor:
        """The nearest latent of the policy's space, e.g. zero centre of mass, padded rows 0."""

    def estimate(self, latents: Tensor, transition: Transition, prediction: Tensor) -> Tensor:
        """z0_pred (B, N, D): the clean latent that a step's prediction implies."""

    def decode(self, latents: Tensor, mask: Tensor, prompts: Prompts, draw: Draw) -> Structures:
        """The samples that the walk's last latents z_0 stand for; may call the network once more."""

    def read(self, clean: Tensor, mask: Tensor, prompts: Prompts) -> Structures:
        """The structures that clean latents (z0_pred) stand for, without a call of the denoiser."""

    def keep_reference(self) -> None:
        """Remember the model as it is now; called once, before training, if the objective needs `reference`."""

    def reference(self) -> AbstractContextManager[None]:
        """While entered, the initial model answers (frozen copy, or adapters off)."""

    def follow(self, decay: float) -> None:
        """Move the old policy: old <- decay old + (1 - decay) current; the first call copies the current model.

        Called before each rollout, if the objective has an `old_decay`.
        """

    def old(self) -> AbstractContextManager[None]:
        """While entered, the old policy answers: the one that samples, where an objective keeps one."""

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t at times t (B,), (B, 1, 1) each: z_t = alpha_t z_0 + sigma_t noise."""

    def forward_noise(self, clean: Tensor, mask: Tensor, t: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """z_t at times t (B,), and the target of the network's prediction: for forward-process objectives."""

    def trainable(self) -> nn.Module:
        """The module that is trained; others (VAE, encoders) stay frozen."""


class Result(Protocol):
    """Energy and forces of one structure, or why there are none."""

    @property
    def energy(self) -> float:
        """eV; NaN if failed."""

    @property
    def forces(self) -> NDArray[np.float64]:
        """eV/Å, (N, 3); NaN if failed."""

    @property
    def reason(self) -> str | None:
        """None if it worked, else a short class of failure, e.g. `scf`, `overlap`, `timeout`."""


class ForceField(Protocol):
    """Energies and forces of many structures."""

    elements: frozenset[int]
    """Atomic numbers that it knows."""

    def evaluate(self, structures: Structures) -> Sequence[Result]:
        """One result per structure, in order; never raises for a bad geometry."""

    def close(self) -> None:
        """Give back workers and memory."""


SCOPES = ("per_sample", "per_batch")
"""What `Reward.scope` may be."""


class Reward(Protocol):
    """Scores a batch of decoded samples; what compares them afterwards (gates, rules for failures) are `stages`.

    `scope` is `per_sample` if a sample's score depends on that sample alone, `per_batch` if it depends on the others
    (uniqueness, diversity, normalisation): such a reward sees the structures of all ranks.
    """

    scope: str

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """Channels and diagnostics for B samples."""

    def close(self) -> None:
        """Give back workers and memory."""


@runtime_checkable
class Remembering(Protocol):
    """A reward whose scores depend on what the run drew before; every process remembers the samples of all."""

    def remember(self, structures: Structures) -> None:
        """Take in the samples of an iteration that is done; scoring them does not."""

    def memory(self) -> dict[str, Any]:
        """All of it, in plain values that a checkpoint may hold."""

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""


class Monitor(Protocol):
    """Measures an iteration's samples for the log, e.g. RDKit validity."""

    def measure(self, structures: Structures) -> Stats:
        """Named numbers."""

    def close(self) -> None:
        """Give back workers."""


class Collective(Protocol):
    """Sums over ranks; `collective.Alone` is the one for a single process. All ranks ask the same things in turn."""

    @property
    def rank(self) -> int:
        """Number of this process."""

    @property
    def size(self) -> int:
        """How many there are."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all ranks."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenation of (B, ...) tensors of all ranks along the first axis."""

    def of_first(self, value: T) -> T:
        """What rank 0 passes, on every rank: numbers, texts, None, lists and mappings of these by text."""


class Model(Protocol):
    """A loaded backbone."""

    @property
    def sizes(self) -> Mapping[int, int]:
        """Histogram of atoms per structure in its training set."""

    @property
    def conditioning(self) -> Conditioning | None:
        """What prompts ask of it; None: it is unconditional."""

    @property
    def origin(self) -> str:
        """Where it came from, for logs."""

    @property
    def card(self) -> dict[str, Any]:
        """What a checkpoint says of it, so that it can be loaded alone."""

    def policy(self) -> DiffusionPolicy:
        """The policy that samples from it; shares its weights."""
