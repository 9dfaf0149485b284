"""The records that pass between the stages of an iteration. Read these and `protocols.py` first.

    prompts -> rollout -> score -> advantages -> update -> checkpoint, log
    Prompts    Trajectory  RewardTable  (B,) or (S, B)  Stats

B counts samples, S transitions, N atoms (padded), D latent features. All records are frozen; none knows what an
atom's chemistry is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

R = TypeVar("R", "Prompts", "Structures")

GATED = "gated"
"""Reason of a score that was withheld on purpose: the sample is left out, whatever failures count as."""

Stats = Mapping[str, float]
"""Named numbers for the log."""


@dataclass(frozen=True)
class Prompts:
    """What to generate. A pure function of (seed, iteration), then sliced by rank.

    Attributes:
        seed: the run's seed; with `iteration` it keys all randomness.
        iteration: number of the rollout, from 0.
        sizes: atoms per sample, (B,) int64.
        group_ids: global number of the group that a sample belongs to, (B,) int64.
        sample_ids: global number of the sample, (B,) int64.
        context: conditioning vectors, (B, C), or None.
    """

    seed: int
    iteration: int
    sizes: Tensor
    group_ids: Tensor
    sample_ids: Tensor
    context: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: slice | Tensor) -> Prompts:
        """The samples at these rows."""
        context = None if self.context is None else self.context[rows]
        return replace(
            self,
            sizes=self.sizes[rows],
            group_ids=self.group_ids[rows],
            sample_ids=self.sample_ids[rows],
            context=context,
        )

    def to(self, device: torch.device, non_blocking: bool = False) -> Prompts:
        """The same prompts on a device."""
        return _moved(self, device, non_blocking)

    @classmethod
    def concatenate(cls, parts: Sequence[Prompts]) -> Prompts:
        """One batch out of several of the same iteration."""
        contexts = [part.context for part in parts if part.context is not None]
        return replace(
            parts[0],
            sizes=torch.cat([part.sizes for part in parts]),
            group_ids=torch.cat([part.group_ids for part in parts]),
            sample_ids=torch.cat([part.sample_ids for part in parts]),
            context=torch.cat(contexts) if contexts else None,
        )


@dataclass(frozen=True)
class Structures:
    """Decoded molecules or crystals, padded.

    Attributes:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        positions: Cartesian, Å, (B, N, 3), 0 where padded.
        mask: real atoms, (B, N) bool.
        cell: lattice vectors in rows, Å, (B, 3, 3); None for molecules, which are not periodic.
    """

    numbers: Tensor
    positions: Tensor
    mask: Tensor
    cell: Tensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice | Tensor) -> Structures:
        """The structures at these rows."""
        cell = None if self.cell is None else self.cell[rows]
        return Structures(self.numbers[rows], self.positions[rows], self.mask[rows], cell)

    @property
    def sizes(self) -> Tensor:
        """Atoms per structure, (B,) int64."""
        return self.mask.sum(1)

    def to(self, device: torch.device, non_blocking: bool = False) -> Structures:
        """The same structures on a device."""
        return _moved(self, device, non_blocking)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Structures:
        """One batch out of several, padded to the largest."""
        widest = max(part.numbers.shape[1] for part in parts)

        def joined(name: str) -> Tensor:
            tensors = [getattr(part, name) for part in parts]
            return torch.cat([pad_atoms(tensor, widest) for tensor in tensors])

        cells = [part.cell for part in parts if part.cell is not None]
        return Structures(joined("numbers"), joined("positions"), joined("mask"), torch.cat(cells) if cells else None)


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
class Step:
    """What the policy says about one transition of a batch.

    Attributes:
        mean: of the Gaussian over z_s, (B, N, D).
        std: number, or (B, N, D) where the policy learns it.
        prediction: the network's output, from which `DiffusionPolicy.estimate` makes z0_pred.
    """

    mean: Tensor
    std: Tensor | float
    prediction: Tensor


@dataclass(frozen=True)
class Bucket:
    """Trajectories of samples of equal or nearly equal size.

    Attributes:
        prompts: the B samples.
        mask: real atoms, (B, N), in the latents' dtype.
        latents: z before each transition and after the last, by place in the walk, {index: (B, N, D)}; only the
            places that the update reads.
        log_probs: behaviour log-probability, {index: (B,)}, for the transitions that the update trains on.
        clean: z0_pred, {index: (B, N, D)}, at the places that the reward schedule asks for.
        structures: the decoded samples.
    """

    prompts: Prompts
    mask: Tensor
    latents: Mapping[int, Tensor]
    log_probs: Mapping[int, Tensor]
    clean: Mapping[int, Tensor]
    structures: Structures


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
        return sum(len(bucket.prompts) for bucket in self.buckets)

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


@dataclass(frozen=True)
class RewardTable:
    """Scores of B samples.

    Attributes:
        channels: what learns, {name: (B,) float64}; NaN where scoring failed.
        reasons: why a sample's scoring failed, one entry per sample, None where it did not.
        potentials: {channel: {walk index: (B,)}}, for shaped rewards.
        fields: per-atom results, {name: (B, N, ...)}, e.g. forces in eV/Å.
        diagnostics: per-sample numbers for the log, {name: (B,) float64}; NaN where unknown.
        seconds: wall time of the scoring by part, as far as the reward says, {part: s}; not of single samples.
    """

    channels: Mapping[str, Tensor]
    reasons: tuple[str | None, ...]
    potentials: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reasons)

    def __getitem__(self, rows: Tensor) -> RewardTable:
        """The scores at these rows, (n,) int64; the time remains that of all."""

        def chosen(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: values[rows.to(values.device)] for name, values in columns.items()}

        potentials = {
            channel: {index: values[rows.to(values.device)] for index, values in columns.items()}
            for channel, columns in self.potentials.items()
        }
        reasons = tuple(self.reasons[row] for row in rows.tolist())
        return RewardTable(
            channels=chosen(self.channels),
            reasons=reasons,
            potentials=potentials,
            fields=chosen(self.fields),
            diagnostics=chosen(self.diagnostics),
            seconds=self.seconds,
        )

    def to(self, device: torch.device) -> RewardTable:
        """The same table with its channels on a device; what is only logged stays where it is."""
        return replace(self, channels={name: values.to(device) for name, values in self.channels.items()})

    @classmethod
    def concatenate(cls, parts: Sequence[RewardTable]) -> RewardTable:
        """One table out of several with the same channels; per-atom fields are padded to the largest, times added."""

        def joined(tables: Sequence[Mapping[str, Tensor]], pad: bool = False) -> dict[str, Tensor]:
            columns = {name: [table[name] for table in tables] for name in tables[0]}
            widest = {name: max(part.shape[1] for part in column) if pad else 0 for name, column in columns.items()}
            return {
                name: torch.cat([pad_atoms(part, widest[name]) if pad else part for part in column])
                for name, column in columns.items()
            }

        return RewardTable(
            channels=joined([part.channels for part in parts]),
            reasons=tuple(reason for part in parts for reason in part.reasons),
            fields=joined([part.fields for part in parts], pad=True),
            diagnostics=joined([part.diagnostics for part in parts]),
            seconds={name: sum(part.seconds[name] for part in parts) for name in parts[0].seconds},
        )


def pad_atoms(tensor: Tensor, atoms: int) -> Tensor:
    """Pad the second axis of (B, N, ...) with zeros up to `atoms`."""
    missing = atoms - tensor.shape[1]
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)


def tensors_of(record: Prompts | Structures) -> dict[str, Tensor]:
    """A record's tensors by name."""
    values = {entry.name: getattr(record, entry.name) for entry in fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _moved(record: R, device: torch.device, non_blocking: bool) -> R:
    """A record with its tensors on a device."""
    moved: dict[str, Any] = {
        name: value.to(device, non_blocking=non_blocking) for name, value in tensors_of(record).items()
    }
    return replace(record, **moved)
