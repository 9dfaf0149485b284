"""Metrics of a batch of crystals, each computed once, when the first component asks for it.

Who computes a metric is decided elsewhere: a provider is handed in for each name, so nothing here knows a force field,
a hull or a matcher.

| name | values |
|---|---|
| `unique` | 1 for the first of each group of matching samples, else 0, (B,) |
| `novel` | 1 if it matches no reference structure, else 0, (B,) |
| `e_above_hull` | energy above the hull, eV/atom, (B,) |
| `hull_holds_compound` | 1 if the hull of its elements holds a compound, else 0, (B,) |
| `hull_entries` | known compounds of its elements, (B,) |
| `drawn_before` | samples of its formula in earlier iterations of the run, (B,) |
| `e_above_hull_relaxed_N` | the same after at most N steps of relaxation, (B,) |
| `amd_distance` | smallest positive AMD distance to one of the same reduced formula, Å; infinite without one, (B,) |
| `structure_features` | features of the geometry, (B, F), with those of the reference |
| `composition_features` | features of the composition, (B, F), with those of the reference |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from atomrl.core.records import Structures
from atomrl.util.errors import UserError

ENERGY = "e_above_hull"
RELAXED = "e_above_hull_relaxed_"
"""Energy above the hull of the samples as they are; and after some steps of relaxation, whose number follows."""


@dataclass(frozen=True)
class Metric:
    """One metric of B samples.

    Attributes:
        values: (B,) or (B, F) float64; NaN where it is unknown.
        reasons: what went wrong, one entry per sample, None where nothing did. A sample that timed out in a matcher
            has a reason and a value (0): it counts as not unique, not novel.
        reference: the same features of the reference set, (M, F), for metrics that are compared with it.
        structures: B, what the values are of, where these are not the samples as they are: relaxed ones.
    """

    values: Tensor
    reasons: tuple[str | None, ...]
    reference: Tensor | None = None
    structures: Structures | None = None


@dataclass(frozen=True)
class SoundSamples:
    """What a provider and a component see: B samples whose geometry is sound.

    Attributes:
        tensors: the samples as tensors.
        crystals: the same one by one: pymatgen structures, or `ase.Atoms` for molecules.
    """

    tensors: Structures
    crystals: Sequence[Any]

    def __len__(self) -> int:
        return len(self.crystals)


class MetricProvider(Protocol):
    """Computes one metric or several that come together."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it provides."""

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """All its metrics of a batch; never raises for a bad sample."""

    def close(self) -> None:
        """Give back workers and memory."""


@runtime_checkable
class Remembers(Protocol):
    """A provider whose metrics depend on what it was told to remember, beside the batch."""

    def remember(self, batch: SoundSamples) -> None:
        """Take in samples that are done with."""

    def memory(self) -> dict[str, Any]:
        """All of it, in plain values that a checkpoint may hold."""

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""


class BatchMetrics:
    """The metrics of one batch, `metrics_obj` of a component: `metrics_obj["novel"].values`.

    Args:
        batch: the samples.
        providers: of the metrics, by name.

    Attributes:
        seconds: wall time of each provider, under the metric that it was first asked for.
    """

    def __init__(self, batch: SoundSamples, providers: Mapping[str, MetricProvider]) -> None:
        self.batch = batch
        self.seconds: dict[str, float] = {}
        self._providers = providers
        self._known: dict[str, Metric] = {}

    def __getitem__(self, name: str) -> Metric:
        """A metric, computed at the first call.

        Raises:
            UserError: no provider computes it, or its provider breaks its promises.
        """
        if name not in self._known:
            if name not in self._providers:
                raise UserError(
                    f"nothing provides the metric {name} (there are: {', '.join(sorted(self._providers)) or 'none'}): "
                    "add it to required_metrics of the component that reads it"
                )
            started = time.perf_counter()
            measured = self._providers[name].measure(self.batch)
            self.seconds[name] = time.perf_counter() - started
            for key, metric in measured.items():
                _check_metric(key, metric, len(self.batch))
            self._known |= measured
        return self._known[name]

    def require(self, names: Iterable[str]) -> None:
        """Compute those of these metrics that nobody has asked for; raises what `[name]` does."""
        for name in names:
            self[name]

    @property
    def computed(self) -> Mapping[str, Metric]:
        """The metrics that somebody asked for, and those that came with them."""
        return self._known


def sound_samples(structures: Structures, rows: Tensor, listed: Callable[[Structures], Sequence[Any]]) -> SoundSamples:
    """The samples at these rows (n,), whose geometry is sound; `listed` gives them one by one."""
    tensors = structures[rows.to(structures.numbers.device)]
    return SoundSamples(tensors, listed(tensors))


def spread(metric: Metric, rows: Tensor, samples: int) -> Metric:
    """A metric of the samples at these rows (n,) as one of all of them: elsewhere NaN, without a reason.

    Values are float64 on the CPU.
    """
    values = torch.full((samples, *metric.values.shape[1:]), torch.nan, dtype=torch.float64)
    values[rows] = metric.values.detach().cpu().double()
    reasons: list[str | None] = [None] * samples
    for row, reason in zip(rows.tolist(), metric.reasons, strict=True):
        reasons[row] = reason
    return Metric(values, tuple(reasons), metric.reference)


def first_reasons(columns: Iterable[Sequence[str | None]]) -> tuple[str | None, ...]:
    """The first reason of each sample; each column has an entry per sample, and there is at least one."""
    return tuple(next((reason for reason in row if reason is not None), None) for row in zip(*columns, strict=True))


@dataclass(frozen=True)
class FeatureProvider:
    """Features by an encoder, each with those of the reference set; implements `MetricProvider`.

    Attributes:
        encode: samples -> {name: (B, F)}.
        references: {name: (M, F)}, what `encode` gives for the reference set.
    """

    encode: Callable[[Structures], Mapping[str, Tensor]]
    references: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of `references`."""
        return tuple(self.references)

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """All features; a sample whose features are not finite has the reason `nonfinite`."""
        measured = {}
        with torch.no_grad():
            features = self.encode(batch.tensors)
        for name, reference in self.references.items():
            values = features[name].detach().cpu().double()
            finite = values.isfinite().all(1)
            reasons = tuple(None if good else "nonfinite" for good in finite.tolist())
            values = torch.where(finite[:, None], values, torch.nan)
            measured[name] = Metric(values, reasons, reference.detach().cpu())
        return measured

    def close(self) -> None:
        """Nothing to give back."""


def _check_metric(name: str, metric: Metric, samples: int) -> None:
    """A provider's promises: one row and one reason per sample, and no NaN without a reason."""
    if len(metric.values) != samples or len(metric.reasons) != samples:
        raise UserError(f"metric {name}: {len(metric.values)} values for {samples} samples; give one per sample")
    unknown = metric.values.isnan().reshape(samples, metric.values.shape[1:].numel()).any(1)
    for row, (missing, reason) in enumerate(zip(unknown.tolist(), metric.reasons, strict=True)):
        if missing and reason is None:
            raise UserError(f"metric {name}: NaN for row {row} without a reason; say why it is unknown")


def component_metric(name: str) -> str:
    """What a reward component is called among metrics: `reward_<name>`."""
    return f"reward_{name}"
