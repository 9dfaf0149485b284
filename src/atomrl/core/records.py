"""The records that pass between the stages of an iteration. Read these and `protocols.py` first.

    prompts -> rollout -> score -> stages -> advantages -> update -> checkpoint, log
    Prompts    Trajectory  RewardTable       Advantages    Stats

B counts samples, S transitions, N atoms (padded), D latent features. All records are frozen; none knows what an
atom's chemistry is. Each is a `Batch`: its fields declare their axes, so that any record can be sliced, joined, padded,
moved and gathered over processes without a word about its fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from atomrl.core.batch import ADDED, ATOMS, ROWS, SHARED, Batch, pad_atoms, tensors_of

__all__ = [
    "ABSTAINED",
    "DUPLICATE",
    "GATED",
    "WITHHELD",
    "Advantages",
    "Bucket",
    "Prompts",
    "RewardTable",
    "Stats",
    "Step",
    "Structures",
    "Trajectory",
    "Transition",
    "pad_atoms",
    "tensors_of",
    "withheld_by",
]

GATED, DUPLICATE, ABSTAINED = "gated", "duplicate", "abstained"
WITHHELD = (GATED, DUPLICATE, ABSTAINED)
"""Reasons of scores that were withheld on purpose: the sample is left out, whatever failures count as."""


def withheld_by(reasons: Sequence[str | None]) -> Tensor:
    """Which of B reasons say that a score is missing on purpose, (B,) bool."""
    return torch.tensor([reason in WITHHELD for reason in reasons], dtype=torch.bool)


Stats = Mapping[str, float]
"""Named numbers for the log."""


@dataclass(frozen=True)
class Prompts(Batch):
    """What to generate. A pure function of (seed, iteration), then sliced by rank.

    Attributes:
        seed: the run's seed; with `iteration` it keys all randomness.
        iteration: number of the rollout, from 0.
        sizes: atoms per sample, (B,) int64.
        group_ids: global number of the group that a sample belongs to, (B,) int64.
        sample_ids: global number of the sample, (B,) int64.
        context: conditioning vectors, (B, C), or None.
    """

    seed: Annotated[int, SHARED]
    iteration: Annotated[int, SHARED]
    sizes: Annotated[Tensor, ROWS]
    group_ids: Annotated[Tensor, ROWS]
    sample_ids: Annotated[Tensor, ROWS]
    context: Annotated[Tensor | None, ROWS] = None

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True)
class Structures(Batch):
    """Decoded molecules or crystals, padded.

    Attributes:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Cartesian, Å, (B, N, 3), 0 where padded.
        mask: real atoms, (B, N) bool.
        cell: lattice vectors in rows, Å, (B, 3, 3); None for molecules, which are not periodic.
    """

    numbers: Annotated[Tensor, ATOMS]
    positions: Annotated[Tensor, ATOMS]
    mask: Annotated[Tensor, ATOMS]
    cell: Annotated[Tensor | None, ROWS] = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def sizes(self) -> Tensor:
        """Atoms per structure, (B,) int64."""
        return self.mask.sum(1)

    @property
    def finite(self) -> Tensor:
        """Whether all coordinates of a structure's atoms are finite, (B,) bool."""
        return (self.positions.isfinite().all(2) | ~self.mask).all(1)


@dataclass(frozen=True)
class Transition:
    """One step of the reverse walk, t -> s < t.

    Attributes:
        index: place in the walk, 0 for the first (noisiest) step.
        t: time before the step, in [0, 1].
        s: time after it.
        trainable: False where the step has no spread; such a step is not part of an objective.
        balance: std / c, with c the factor of the predicted noise in the step's mean: what a step's log-ratio is
            multiplied by under `step_weighting: balanced`.
    """

    index: int
    t: float
    s: float
    trainable: bool
    balance: float


@dataclass(frozen=True)
class Step(Batch):
    """What the policy says about one transition of a batch.

    Attributes:
        mean: of the Gaussian over z_s, (B, N, D).
        std: number, or (B, N, D) where the policy learns it.
        prediction: the network's output, from which `DiffusionPolicy.estimate` makes z0_pred.
    """

    mean: Annotated[Tensor, ATOMS]
    std: Annotated[Tensor | float, ATOMS]
    prediction: Annotated[Tensor, ATOMS]

    def __len__(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class Bucket(Batch):
    """Trajectories of samples of equal or nearly equal size.

    Attributes:
        prompts: the B samples.
        mask: real atoms, (B, N), in the latents' dtype.
        latents: z before each transition and after the last, by place in the walk, {index: (B, N, D)}; only the
            places that the update reads.
        log_probs: behaviour log-probability, {index: (B,)}, for the transitions that the update trains on.
        log_prob_reduction: how these were made of the elements of a latent, `sum` or `mean`.
        behaviour: what the policy that sampled said about a few transitions, whose latents are kept too, {index: Step}:
            the guard measures from there.
        clean: z_0, the walk's last latents, from which the samples were decoded, (B, N, D).
        means: of the steps that sampled, {index: (B, N, D)}, at the places of `RolloutConfig.mean_at`.
        estimates: what z0_pred stands for, {index: Structures}, at the places of `RolloutConfig.estimate_at`.
        structures: the decoded samples.
    """

    prompts: Annotated[Prompts, ROWS]
    mask: Annotated[Tensor, ATOMS]
    latents: Annotated[Mapping[int, Tensor], ATOMS]
    log_probs: Annotated[Mapping[int, Tensor], ROWS]
    log_prob_reduction: Annotated[str, SHARED]
    behaviour: Annotated[Mapping[int, Step], ATOMS]
    clean: Annotated[Tensor, ATOMS]
    means: Annotated[Mapping[int, Tensor], ATOMS]
    estimates: Annotated[Mapping[int, Structures], ATOMS]
    structures: Annotated[Structures, ROWS]

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Trajectory:
    """A rollout: its walk and its buckets. Rows of every (B,) tensor about it follow the buckets in order.

    Attributes:
        walk: all S transitions.
        trained: indices of the transitions that the update trains on, ascending.
        buckets: at least one.
    """

    walk: tuple[Transition, ...]
    trained: tuple[int, ...]
    buckets: tuple[Bucket, ...]

    def __len__(self) -> int:
        return sum(map(len, self.buckets))

    @property
    def group_ids(self) -> Tensor:
        """Global group of each sample, (B,)."""
        return torch.cat([bucket.prompts.group_ids for bucket in self.buckets])

    @property
    def sample_ids(self) -> Tensor:
        """Global number of each sample, (B,)."""
        return torch.cat([bucket.prompts.sample_ids for bucket in self.buckets])

    @property
    def prompts(self) -> Prompts:
        """Prompts of all samples."""
        return Prompts.concatenate([bucket.prompts for bucket in self.buckets])

    @property
    def structures(self) -> Structures:
        """All decoded samples, padded to the largest."""
        return Structures.concatenate([bucket.structures for bucket in self.buckets])

    @property
    def estimates(self) -> dict[int, Structures]:
        """What z0_pred stands for, of all samples, at the places where it is kept."""
        places = self.buckets[0].estimates
        return {place: Structures.concatenate([bucket.estimates[place] for bucket in self.buckets]) for place in places}


@dataclass(frozen=True)
class RewardTable(Batch):
    """Scores of B samples.

    Attributes:
        channels: what learns, {name: (B,) float64}, more is better; NaN where scoring failed.
        reasons: why a sample's scoring failed, one entry per sample, None where it did not.
        potentials: scores of what z0_pred stands for, {place in the walk: RewardTable}, for shaped rewards.
        rewards_ts: {channel: (B, S)}, what each transition of the walk is paid, of channels whose reward is shaped.
        fields: per-atom results, {name: (B, N, ...)}, e.g. forces in eV/Å.
        diagnostics: per-sample numbers for the log, {name: (B,) float64}; NaN where unknown.
        withheld: scores that are missing on purpose, {channel: (B,) bool}, see `left_out`.
        filled: which scores no reward gave but a rule for failures, {channel: (B,) bool}, see `stages.FailedScores`.
        scored_structures: what was scored in place of the samples, {metric: structures}: relaxed crystals.
        seconds: wall time of the scoring by part, as far as the reward says, {part: s}; not of single samples.
    """

    channels: Annotated[Mapping[str, Tensor], ROWS]
    reasons: Annotated[tuple[str | None, ...], ROWS]
    potentials: Annotated[Mapping[int, RewardTable], ROWS] = field(default_factory=dict)
    rewards_ts: Annotated[Mapping[str, Tensor], ROWS] = field(default_factory=dict)
    fields: Annotated[Mapping[str, Tensor], ATOMS] = field(default_factory=dict)
    diagnostics: Annotated[Mapping[str, Tensor], ROWS] = field(default_factory=dict)
    withheld: Annotated[Mapping[str, Tensor], ROWS] = field(default_factory=dict)
    filled: Annotated[Mapping[str, Tensor], ROWS] = field(default_factory=dict)
    scored_structures: Annotated[Mapping[str, Structures], ROWS] = field(default_factory=dict)
    seconds: Annotated[Mapping[str, float], ADDED] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def left_out(self, channel: str) -> Tensor:
        """Where a channel's score is missing on purpose, (B,) bool: no rule for failures replaces it.

        A channel that `withheld` does not name goes by the samples' reasons.
        """
        if channel in self.withheld:
            return self.withheld[channel]
        return withheld_by(self.reasons).to(self.channels[channel].device)

    @property
    def scored(self) -> Mapping[str, Tensor]:
        """The channels without what a rule for failures filled in: there NaN again."""
        return {
            name: torch.where(self.filled[name], torch.nan, values) if name in self.filled else values
            for name, values in self.channels.items()
        }


@dataclass(frozen=True)
class Advantages(Batch):
    """What each sample's steps are reinforced with.

    Attributes:
        total: (B,), one number for all steps of a sample; float64.
        channels: {name: (B,)}, each channel's weighted and clamped share, for the log.
        stats: counts for the log.
        by_step: (B, S), where each transition has a number of its own; then `total` is the clamped sum over them.
        fields: per-atom results of the scoring that an objective may read beside them, see `RewardTable.fields`.
    """

    total: Annotated[Tensor, ROWS]
    channels: Annotated[Mapping[str, Tensor], ROWS]
    stats: Annotated[Stats, SHARED] = field(default_factory=dict)
    by_step: Annotated[Tensor | None, ROWS] = None
    fields: Annotated[Mapping[str, Tensor], ATOMS] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.total)

    def at(self, transition: Transition) -> Tensor:
        """What a transition's step is reinforced with, (B,)."""
        return self.total if self.by_step is None else self.by_step[:, transition.index]
