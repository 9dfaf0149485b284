"""What an objective sees of a rollout, and what it must answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor

from atomrl.core.advantages import Advantages
from atomrl.core.batch import ATOMS, ROWS, SHARED, Batch
from atomrl.core.protocols import Collective, DiffusionPolicy
from atomrl.core.records import Bucket, RewardTable, Trajectory


class Term(Protocol):
    """One summand of the loss of a pass over a rollout: a transition of the walk, or a draw of times to re-noise at."""

    @property
    def index(self) -> int:
        """Its number, for messages."""


@dataclass(frozen=True)
class Samples(Batch):
    """Some samples of a bucket, with all that was recorded of them and what they teach.

    Attributes:
        bucket: prompts, mask, latents, behaviour log-probabilities, z_0, z0_pred and structures of B samples.
        advantages: theirs; `advantages.at(transition)` is (B,), 0 for a sample that takes no part.
        active: (B,) bool, False for samples that take no part in any term.
        fields: per-atom results of the scoring, {name: (B, N, ...)}, e.g. forces in eV/Å.
        transitions: length of the walk.
    """

    bucket: Annotated[Bucket, ROWS]
    advantages: Annotated[Advantages, ROWS]
    active: Annotated[Tensor, ROWS]
    fields: Annotated[Mapping[str, Tensor], ATOMS]
    transitions: Annotated[int, SHARED]

    def __len__(self) -> int:
        return len(self.active)

    def latents(self, index: int) -> Tensor:
        """Latents at a place of the walk, (B, N, D); zeros for samples that take no part.

        An infinite latent times a gradient of zero would be NaN, so masking the loss is not enough.
        """
        return torch.where(self.active[:, None, None], self.bucket.latents[index], 0.0)

    @property
    def clean(self) -> Tensor:
        """z_0, (B, N, D); zeros for samples that take no part."""
        return torch.where(self.active[:, None, None], self.bucket.clean, 0.0)


@dataclass(frozen=True)
class StepLoss:
    """An objective's answer to one term.

    Attributes:
        loss: (B,), differentiable; 0 for inactive samples.
        counts: {name: (B,)} per-sample quantities whose means over the active samples go to the log.
        largest: {name: (B,)} quantities of which the largest of the active samples goes to the log.
    """

    loss: Tensor
    counts: Mapping[str, Tensor]
    largest: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectiveSpec:
    """How a configuration makes an objective; each file of `core/objectives` that holds one has it as its `SPEC`.

    Attributes:
        make: out of the settings of a training, {key: value}, the weight of each channel, and the samples per group.
        over_batch: whether the objective, with these settings, compares samples over the batch and not in their group,
            so that a failed score counts as the worst of the batch.
    """

    make: Callable[[Mapping[str, Any], Mapping[str, float], int], Objective]
    over_batch: Callable[[Mapping[str, Any]], bool] = lambda _: False


class Objective(Protocol):
    """Turns scores into advantages, and a rollout into losses."""

    @property
    def needs_reference(self) -> bool:
        """Whether the policy must keep its initial model, see `DiffusionPolicy.reference`."""

    @property
    def needs_walk(self) -> bool:
        """Whether the rollout must record transitions, with their latents and log-probabilities."""

    def old_decay(self, iteration: int) -> float | None:
        """How much of the old policy stays when it moves to the current one before an iteration's rollout.

        The old policy then samples; 0: it is the current one as it was before the update. None: no old policy is kept.
        """

    def advantages(
        self, table: RewardTable, group_ids: Tensor, active: Tensor, collective: Collective | None = None
    ) -> Advantages:
        """Advantages of the B samples of this process.

        Args:
            table: their scores after all stages; a channel that is NaN does not teach.
            group_ids: (B,); a group is whole in one process.
            active: (B,) bool, False for samples whose trajectory is unusable.
            collective: what compares samples beyond their groups sums over it; alone if None.
        """

    def terms(self, trajectory: Trajectory, epoch: int) -> Sequence[Term]:
        """What the loss of a pass over the rollout, from 0, is the mean of; the same on all processes.

        A likelihood objective answers with the trained transitions, a forward-process objective with draws of times.
        """

    def loss(self, policy: DiffusionPolicy, samples: Samples, term: Term) -> StepLoss:
        """Loss of one term; may ask the policy for `step`, `predict`, or, inside `reference()`, the initial model."""
