"""The crystal reward: components, each normalised over the batch, weighed, and (by the objective) summed.

| stage | here |
|---|---|
| cells that are not sound are set aside | `check_cells`: they reach no component, matcher or force field |
| metrics, each once per batch | `BatchMetrics`, from the providers handed in |
| each component's raw values | `RewardComponent.compute`, diagnostics `raw_<name>` |
| normalised over the batch, weighed | `RewardComponent.scale`: the channels |
| summed, normalised in groups | `GRPO.advantages`, or `ReinforceReward.normalize` by hand |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atomrl.advantages import Groups
from atomrl.chemistry.crystals import check_cells, to_pymatgen
from atomrl.errors import UserError
from atomrl.records import Prompts, RewardTable, Structures
from atomrl.rewards.components import RewardComponent, Scores, as_scores, unique_names
from atomrl.rewards.metrics import BatchMetrics, CrystalBatch, Metric, MetricProvider
from atomrl.rewards.normalize import check_normalization, normalize

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


class ReinforceReward:
    """Sums reward components; implements `protocols.Reward` with one channel per component.

    Args:
        components: at least one.
        normalize_fn: how `normalize` makes advantages of the sum; the objective has an option of the same name.
        eps: of that normalisation.
        reference_dataset: name or path of the set that novelty and diversity compare with; who builds the reward
            makes its providers from it.
        providers: of the metrics that components name; more can come later by `provide`.
        check: structures -> for each a reason not to look at it, or None.
    """

    scope: str = "per_batch"

    def __init__(
        self,
        components: Sequence[RewardComponent],
        normalize_fn: str | None = "std",
        eps: float = 1e-4,
        reference_dataset: str | None = None,
        providers: Iterable[MetricProvider] = (),
        check: Callable[[Structures], Sequence[str | None]] = check_cells,
    ) -> None:
        check_normalization(normalize_fn, eps, (-1.0, 1.0))
        if not components:
            raise UserError("ReinforceReward got no components: name at least one")
        self.components, self.normalize_fn, self.eps = tuple(components), normalize_fn, eps
        self.reference_dataset, self.check = reference_dataset, check
        self.names = unique_names(self.components)
        self._providers: dict[str, MetricProvider] = {}
        self.provide(*providers)

    @property
    def missing_metrics(self) -> tuple[str, ...]:
        """Metrics that components name and nobody provides yet."""
        needed = {name for component in self.components for name in component.metrics}
        return tuple(sorted(needed - self._providers.keys()))

    def provide(self, *providers: MetricProvider) -> None:
        """Add providers of metrics; for a name that has one, the later one is used."""
        for provider in providers:
            self._providers |= dict.fromkeys(provider.names, provider)

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """Channels, weighed and normalised over the batch, (B,) float64 on the CPU.

        Diagnostics: `reward`, their sum; `raw_<name>`, what a component computed; and the metrics that are one number
        per sample. A sample whose cell is not sound is worth a component's `failed_value`, or NaN; its reason is that
        of the check. Samples are looked at in the order of their ids, so that which of two equal ones is the first
        does not depend on how the work was cut.

        Raises:
            UserError: a component returned a wrong shape, or NaN without a reason; a metric has no provider.
        """
        if self.missing_metrics:
            raise UserError(
                f"nothing provides the metric {', '.join(self.missing_metrics)}, which "
                f"{', '.join(self._who_needs(self.missing_metrics))} reads: give its provider to ReinforceReward"
            )
        checked = list(self.check(structures))
        order = prompts.sample_ids.argsort(stable=True).tolist()
        rows = torch.tensor([row for row in order if checked[row] is None], dtype=torch.int64)
        sound = _sound_batch(structures, rows)
        metrics = BatchMetrics(sound, self._providers)
        answers = {
            name: self._compute(name, component, sound, metrics, prompts.sample_ids[rows])
            for name, component in zip(self.names, self.components, strict=True)
        }
        raw, channels = {}, {}
        for name, component in zip(self.names, self.components, strict=True):
            failed = torch.nan if component.failed_value is None else component.failed_value
            values = torch.full((len(structures),), failed, dtype=torch.float64)
            values[rows] = answers[name].values
            raw[f"raw_{name}"], channels[name] = values, component.scale(values)
        reasons = _merged_reasons(checked, rows, answers.values(), metrics.computed.values())
        numbers = {name: _spread(metric, rows, len(structures)) for name, metric in metrics.computed.items()}
        diagnostics = {
            "reward": torch.stack(list(channels.values())).sum(0),
            **raw,
            **{name: values for name, values in numbers.items() if values is not None},
        }
        return RewardTable(channels, reasons, diagnostics=diagnostics)

    def normalize(self, rewards: Tensor, group_ids: Tensor | None = None) -> Tensor:
        """Advantages: rewards (B,) normalised over the batch, or in groups where `group_ids` (B,) are given."""
        groups = None if group_ids is None else Groups.of(group_ids)
        return normalize(rewards, self.normalize_fn, groups=groups, eps=self.eps)

    def close(self) -> None:
        """Close the providers."""
        for provider in {id(provider): provider for provider in self._providers.values()}.values():
            provider.close()

    def _who_needs(self, metrics: Sequence[str]) -> list[str]:
        """Names of the components that read one of these metrics."""
        pairs = zip(self.names, self.components, strict=True)
        return [name for name, component in pairs if set(component.metrics) & set(metrics)]

    def _compute(
        self, name: str, component: RewardComponent, batch: CrystalBatch, metrics: BatchMetrics, sample_ids: Tensor
    ) -> Scores:
        """A component's raw values of the sound samples, float64 on the CPU, each finite or NaN with a reason."""
        nothing: tuple[str | None, ...] = (None,) * len(batch)
        if not len(batch):
            return Scores(torch.zeros(0, dtype=torch.float64), ())
        returned = component.compute(
            gen_structures=list(batch.crystals),
            batch_gen=batch.tensors,
            metrics_obj=metrics,
            device=batch.tensors.positions.device,
        )
        answer = as_scores(returned, name)
        values, reasons = (answer, nothing) if isinstance(answer, Tensor) else (answer.values, answer.reasons)
        if values.shape != (len(batch),) or len(reasons) != len(batch):
            raise UserError(
                f"reward component {name}: got shape {tuple(values.shape)} and {len(reasons)} reasons for "
                f"{len(batch)} samples; return one number per structure, shape ({len(batch)},)"
            )
        values = values.detach().cpu().double()
        for row, (number, reason) in enumerate(zip(values.tolist(), reasons, strict=True)):
            if reason is None and not torch.isfinite(values[row]):
                raise UserError(
                    f"reward component {name}: {number} for sample {int(sample_ids[row])} "
                    f"({_formula(batch.crystals[row])}); return a finite number, or Scores with a reason for NaN"
                )
        return Scores(torch.where(values.isfinite(), values, torch.nan), reasons)


def _sound_batch(structures: Structures, rows: Tensor) -> CrystalBatch:
    """The structures at these rows."""
    tensors = structures[rows.to(structures.numbers.device)]
    return CrystalBatch(tensors, to_pymatgen(tensors) if len(rows) else [])


def _formula(crystal: Structure) -> str:
    """Of a message."""
    return str(crystal.composition.reduced_formula)


def _merged_reasons(
    checked: Sequence[str | None], rows: Tensor, answers: Iterable[Scores], metrics: Iterable[Metric]
) -> tuple[str | None, ...]:
    """The first reason of each sample: of the check, else of a component, else of a metric."""
    merged = list(checked)
    for reasons in [*(answer.reasons for answer in answers), *(metric.reasons for metric in metrics)]:
        for row, reason in zip(rows.tolist(), reasons, strict=True):
            merged[row] = merged[row] or reason
    return tuple(merged)


def _spread(metric: Metric, rows: Tensor, samples: int) -> Tensor | None:
    """A metric's numbers at the rows of all samples, NaN elsewhere, (B,); None for features."""
    if metric.values.ndim != 1:
        return None
    values = torch.full((samples,), torch.nan, dtype=torch.float64)
    values[rows] = metric.values.double()
    return values
