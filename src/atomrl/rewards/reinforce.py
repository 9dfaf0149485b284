"""The crystal reward: components, each normalised over the batch, and (by the objective) weighed and summed.

| stage | here |
|---|---|
| cells that are not sound are set aside | `check_cells`: they reach no component, matcher or force field |
| metrics, each once per batch | `BatchMetrics`, from the providers handed in |
| each component's raw values | `RewardComponent.compute`, diagnostics `raw_<name>` |
| normalised over the batch; negative if the weight is | `RewardComponent.scale`: the channels |
| weighed, summed, normalised in groups | `GRPO.advantages`, or `ReinforceReward.normalize` by hand |
| or multiplied to one channel | `product.multiplied`, with `combine="product"` |
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from atomrl.chemistry.rdkit_molecules import to_rdkit
from atomrl.core.advantages import Groups
from atomrl.core.conditioning import Conditioning
from atomrl.core.normalize import check_normalization, normalize
from atomrl.core.records import Prompts, RewardTable, Structures, withheld_by
from atomrl.core.stages import weighted_sum
from atomrl.measures.measure import (
    BatchMetrics,
    Metric,
    MetricProvider,
    Remembers,
    SoundSamples,
    first_reasons,
    sound_samples,
    spread,
)
from atomrl.rewards.base import RewardComponent, check_component, unique_names
from atomrl.rewards.checked_once import CheckedOnce
from atomrl.rewards.product import PRODUCT, check_factors, lasting, multiplied
from atomrl.rewards.scores import as_scores
from atomrl.structures.listing import MOL, STRUCTURES, Listing
from atomrl.structures.padding import replace_rows
from atomrl.user_code.calling import calling
from atomrl.util.errors import UserError
from atomrl.util.own_frames import is_ours

CELL_CHECKS = "cell_checks"
"""Part of the time that is no component's."""

COMBINE = ("sum", PRODUCT)
"""How components become what is learned from."""

LARGEST = 1e150
"""A raw value whose square is still finite, as the standard deviation needs it."""


class ReinforceReward:
    """Sums reward components; implements `protocols.Reward` with one channel per component, and has their `weights`.

    Args:
        components: at least one.
        normalize_fn: how `normalize` makes advantages of the sum; the objective has an option of the same name.
        eps: of that normalisation.
        reference_dataset: name or path of the set that novelty and diversity compare with; who builds the reward
            makes its providers from it.
        providers: of the metrics that components name; more can come later by `provide`.
        check: structures -> for each a reason not to look at it, or None; that of `listing` if None.
        listing: how samples are handed to components; None: as pymatgen structures, crystals that is.
        totals: whether the diagnostics `reward` and `raw_reward` sum the channels up; else a stage does.
        conditioning: of the model that is rewarded: components get what prompts ask for, {property: (B,)}, as `asked`.
        combine: `sum`, a channel for each component; `product`, one channel, see `rewards.product`.

    Raises:
        UserError: no component, one without weight or normalisation, one that asks for samples in a form that there is
            not, one whose network reads other samples, or one that cannot be multiplied.
    """

    scope: str = "per_batch"

    def __init__(
        self,
        components: Sequence[RewardComponent],
        normalize_fn: str | None = "std",
        eps: float = 1e-4,
        reference_dataset: str | None = None,
        providers: Iterable[MetricProvider] = (),
        check: Callable[[Structures], Sequence[str | None]] | None = None,
        listing: Listing | None = None,
        totals: bool = True,
        conditioning: Conditioning | None = None,
        combine: str = "sum",
    ) -> None:
        check_normalization(normalize_fn, eps, (-1.0, 1.0))
        if not components:
            raise UserError("ReinforceReward got no components: name at least one")
        for component in components:
            check_component(component)
        if combine not in COMBINE:
            raise UserError(f"ReinforceReward's combine is one of {', '.join(COMBINE)}; got {combine!r}")
        if combine == PRODUCT:
            check_factors(components)
        self.combine = combine
        self.components, self.normalize_fn, self.eps = tuple(components), normalize_fn, eps
        self.listing = _crystals() if listing is None else listing
        self.reference_dataset, self.totals, self.conditioning = reference_dataset, totals, conditioning
        self.check = CheckedOnce(self.listing.check if check is None else check)
        self.names = unique_names(self.components)
        self._require_forms()
        self._providers: dict[str, MetricProvider] = {}
        self.provide(*providers)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each channel in the objective: the size of each component's weight, or 1 of their product."""
        if self.combine == PRODUCT:
            return {PRODUCT: 1.0}
        return {name: abs(component.weight) for name, component in zip(self.names, self.components, strict=True)}

    @property
    def compares(self) -> bool:
        """Whether a sample's scores depend on the samples beside it, as far as its components say."""
        return any(component.normalize_fn is not None or component.compares for component in self.components)

    @property
    def missing_metrics(self) -> tuple[str, ...]:
        """Metrics that components read and that have no provider yet."""
        needed = {name for component in self.components for name in component.metrics}
        return tuple(sorted(needed - self._providers.keys()))

    def provide(self, *providers: MetricProvider) -> None:
        """Add providers of metrics; for a name that has one, the later one is used."""
        for provider in providers:
            self._providers |= dict.fromkeys(provider.names, provider)

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """Channels, normalised over the batch, (B,) float64 on the CPU; times -1 if the component's weight is negative.

        Diagnostics: `reward`, their weighted sum; `raw_<name>`, what a component computed; `raw_reward`, the weighted
        sum of these: unlike `reward`, whose mean a normalisation fixes, it can be compared between iterations; and the
        metrics that are one number per sample. In `raw_reward` a component without a value for a sample counts with the
        worst one that it has in the batch, so that failing does not pay; NaN if it has none. A component of weight 0
        counts in neither. Of a product, `raw_reward` is what `product.lasting` says, the worst of the batch for NaN.

        A sample whose cell is not sound is worth a component's `failed_value`, or NaN; its reason is that of the check.
        Samples are looked at in the order of their ids, so that which of two equal ones is the first does not depend on
        how the work was cut.

        Seconds: `cell_checks` and each component's, which add up to the whole; and `metric_<name>`, the part of a
        component's that went into a metric it was the first to ask for.

        Raises:
            UserError: a component returned a wrong shape, or NaN without a reason, or changed the samples; what it
                returned is too large to be normalised and weighed; a metric has no provider.
        """
        self._require_metrics()
        samples, started = len(structures), time.perf_counter()
        checked = self.check(structures)
        order = prompts.sample_ids.argsort(stable=True).tolist()
        rows = torch.tensor([row for row in order if checked[row] is None], dtype=torch.int64)
        metrics = BatchMetrics(sound_samples(structures, rows, self.listing.listed), self._providers)
        seconds = {CELL_CHECKS: time.perf_counter() - started}
        unsound = torch.tensor([reason is not None for reason in checked], dtype=torch.bool)
        raw, channels, withheld, reasons = {}, {}, {}, [checked]
        for name, component in zip(self.names, self.components, strict=True):
            started = time.perf_counter()
            answer = spread(self._values(name, component, metrics, prompts[rows]), rows, samples)
            failed = torch.nan if component.failed_value is None else component.failed_value
            raw[f"raw_{name}"] = answer.values.masked_fill(unsound, failed)
            channels[name] = _scaled(name, component, raw[f"raw_{name}"])
            withheld[name] = withheld_by(answer.reasons)
            reasons.append(answer.reasons)
            seconds[name] = time.perf_counter() - started
            seconds |= {f"metric_{metric}": spent for metric, spent in metrics.seconds.items()}
        known = self._known(channels, raw)
        if self.combine == PRODUCT:
            channels = {PRODUCT: multiplied(channels, self.components)}
            counting = [rows for rows, part in zip(withheld.values(), self.components, strict=True) if part.weight]
            withheld = {PRODUCT: torch.stack(counting).any(0)}
        numbers = {name: spread(metric, rows, samples) for name, metric in self._measured(metrics).items()}
        diagnostics = {
            **({"reward": weighted_sum(channels, self.weights), "raw_reward": known} if self.totals else {}),
            **raw,
            **{name: metric.values for name, metric in numbers.items() if metric.values.ndim == 1},
        }
        scored = {
            name: replace_rows(structures, rows.tolist(), metric.structures)
            for name, metric in metrics.computed.items()
            if metric.structures is not None
        }
        merged = first_reasons([*reasons, *(metric.reasons for metric in numbers.values())])
        return RewardTable(
            channels, merged, diagnostics=diagnostics, withheld=withheld, scored_structures=scored, seconds=seconds
        )

    def _measured(self, metrics: BatchMetrics) -> Mapping[str, Metric]:
        """What was computed; every part of a rollout has the same, also one without a sound sample."""
        if self.scope == "per_sample":
            metrics.require(name for component in self.components for name in component.metrics)
        return metrics.computed

    def _known(self, scaled: Mapping[str, Tensor], raw: Mapping[str, Tensor]) -> Tensor:
        """The diagnostic `raw_reward`, (B,)."""
        if self.combine == PRODUCT:
            return _worst_filled(lasting(scaled, {name: raw[f"raw_{name}"] for name in scaled}, self.components))
        pairs = zip(self.names, self.components, strict=True)
        shares = [_worst_filled(part.weight * raw[f"raw_{name}"]) for name, part in pairs if part.weight]
        return torch.stack(shares).sum(0) if shares else torch.zeros_like(next(iter(raw.values())))

    def normalize(self, rewards: Tensor, group_ids: Tensor | None = None) -> Tensor:
        """Advantages: rewards (B,) normalised over the batch, or in groups where `group_ids` (B,) are given."""
        groups = None if group_ids is None else Groups.of(group_ids)
        return normalize(rewards, self.normalize_fn, groups=groups, eps=self.eps)

    def remember(self, structures: Structures) -> None:
        """See `Remembering`: each provider with a memory gets the samples of sound cells; scoring has checked them."""
        keepers = self._remembering
        if not keepers:
            return
        sound = [row for row, reason in enumerate(self.check(structures)) if reason is None]
        batch = sound_samples(structures, torch.tensor(sound, dtype=torch.int64), self.listing.listed)
        for keeper in keepers.values():
            keeper.remember(batch)

    def memory(self) -> dict[str, Any]:
        """See `Remembering`: that of each provider which has one, by the name of its metric."""
        return {name: keeper.memory() for name, keeper in self._remembering.items()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """See `Remembering`; a provider of which nothing is told begins anew."""
        for name, keeper in self._remembering.items():
            keeper.recall(memory.get(name, {}))

    @property
    def _remembering(self) -> dict[str, Remembers]:
        """Providers with a memory, by their first metric."""
        return {provider.names[0]: provider for provider in self._each_provider if isinstance(provider, Remembers)}

    @property
    def _each_provider(self) -> list[MetricProvider]:
        """All providers, each once."""
        return list({id(provider): provider for provider in self._providers.values()}.values())

    def close(self) -> None:
        """Close the providers."""
        for provider in self._each_provider:
            provider.close()

    def _asked(self, prompts: Prompts) -> dict[str, Mapping[str, Tensor]]:
        """The argument `asked` of a component, of prompts (B,) of a conditional model; of others there is none."""
        if self.conditioning is None or prompts.context is None:
            return {}
        return {"asked": self.conditioning.values(prompts.context)}

    def _require_metrics(self) -> None:
        """Raise UserError for a metric without a provider."""
        if missing := self.missing_metrics:
            pairs = zip(self.names, self.components, strict=True)
            asking = [name for name, component in pairs if set(component.metrics) & set(missing)]
            raise UserError(
                f"nothing provides the metric {', '.join(missing)}, which {', '.join(asking)} reads: "
                "give its provider to ReinforceReward"
            )

    def _require_forms(self) -> None:
        """Raise UserError for a component that asks for samples in a form that there is not, or reads others."""
        for name, component in zip(self.names, self.components, strict=True):
            if component.noun not in (None, self.listing.noun):
                raise UserError(
                    f"reward component {name} predicts by a network that reads {component.noun}, and the samples are "
                    f"{self.listing.noun}: give a predictor of these"
                )
            form = component.form
            if form is not None and form not in self.listing.forms:
                raise UserError(
                    f"reward component {name} asks for {form} by the annotation of its first parameter, and "
                    f"{self.listing.noun} come as {' or '.join(sorted(self.listing.forms))}, or as objects if it names "
                    "none of these"
                )
            if form == MOL and component.metrics:
                raise UserError(
                    f"reward component {name} asks for {MOL}, which only valid molecules are, and for metrics, which "
                    "all samples have: let it ask for one of them"
                )

    def _content(self, batch: SoundSamples) -> list[bytes]:
        """What a component must leave as it is: the samples as tensors, and each as an object."""
        tensors = batch.tensors
        columns = [tensors.numbers, tensors.positions, tensors.mask, *([] if tensors.cell is None else [tensors.cell])]
        arrays = [column.detach().cpu().numpy().tobytes() for column in columns]
        return arrays + [part for sample in batch.crystals for part in self.listing.content(sample)]

    def _values(self, name: str, component: RewardComponent, metrics: BatchMetrics, prompts: Prompts) -> Metric:
        """A component's raw values of the sound samples; it gets them in the form that it asks for."""
        batch = metrics.batch
        if component.form == STRUCTURES:
            return self._compute(name, component, batch, batch.tensors, {"metrics_obj": metrics}, prompts)
        if component.form != MOL:
            return self._compute(name, component, batch, list(batch.crystals), {"metrics_obj": metrics}, prompts)
        molecules, reasons = to_rdkit(batch.tensors)
        rows = torch.tensor([row for row, reason in enumerate(reasons) if reason is None], dtype=torch.int64)
        valid = sound_samples(batch.tensors, rows, self.listing.listed)
        found = spread(self._compute(name, component, valid, molecules, {}, prompts[rows]), rows, len(batch))
        return replace(found, reasons=first_reasons([reasons, found.reasons]))

    def _compute(
        self,
        name: str,
        component: RewardComponent,
        batch: SoundSamples,
        handed: Any,
        further: Mapping[str, Any],
        prompts: Prompts,
    ) -> Metric:
        """A component's raw values of samples, float64 on the CPU, each finite or NaN with a reason.

        Args:
            name: of the component.
            component: to ask.
            batch: the samples.
            handed: the same, in the form that the component asks for.
            further: keyword arguments of `compute`.
            prompts: of the same, with what they ask for.
        """
        if not len(batch):
            return Metric(torch.zeros(0, dtype=torch.float64), ())
        # Not of the package's own, which are known to leave them alone: looking goes through every site.
        foreign = not (is_ours(component) and is_ours(component.code))
        before = self._content(batch) if foreign else ()
        count = f"{len(batch)} sample{'s' if len(batch) > 1 else ''}"
        with calling(f"the reward component {name}", component.code, f"called on {count}"):
            returned = component.compute(
                gen_structures=handed,
                batch_gen=batch.tensors,
                device=batch.tensors.positions.device,
                **further,
                **self._asked(prompts),
            )
            if foreign and self._content(batch) != before:
                raise UserError(
                    f"reward component {name} changes gen_structures or batch_gen, which other components read too: "
                    "let it work on copies"
                )
            return self._checked(name, returned, batch, prompts)

    def _checked(self, name: str, returned: Any, batch: SoundSamples, prompts: Prompts) -> Metric:
        """What a component returned for samples, float64 on the CPU, each finite or NaN with a reason.

        Raises:
            UserError: it is something else.
        """
        answer = as_scores(returned, name)
        nothing: tuple[str | None, ...] = (None,) * len(batch)
        values, reasons = (answer, nothing) if isinstance(answer, Tensor) else (answer.values, answer.reasons)
        wanted = f"for {len(batch)} samples; return one number per structure, shape ({len(batch)},)"
        if values.shape != (len(batch),):
            raise UserError(f"reward component {name}: got shape {tuple(values.shape)} {wanted}")
        if len(reasons) != len(batch):
            raise UserError(
                f"reward component {name}: got {len(reasons)} reasons {wanted}, and a reason or None for each"
            )
        values = values.detach().cpu().double()
        for row, (number, reason) in enumerate(zip(values.tolist(), reasons, strict=True)):
            if reason is None and not math.isfinite(number):
                formula = self.listing.formula(batch.crystals[row])
                raise UserError(
                    f"reward component {name}: {number} for sample {int(prompts.sample_ids[row])} ({formula}); "
                    "return a finite number, or Scores with a reason for NaN"
                )
        silent = torch.tensor([reason is None for reason in reasons])
        return Metric(torch.where(values.isfinite() & silent, values, torch.nan), reasons)


def _crystals() -> Listing:
    """As pymatgen structures."""
    from atomrl.structures.crystals import CRYSTALS  # noqa: PLC0415 - needs an extra

    return CRYSTALS


def _scaled(name: str, component: RewardComponent, raw: Tensor) -> Tensor:
    """A component's raw values (B,), NaN where there is none, normalised so that more is better; all others finite."""
    scaled = component.scale(raw, weighed=False) * (-1 if component.weight < 0 else 1)
    known, counted = raw[raw.isfinite()], component.weight * scaled
    if bool((known.abs() > LARGEST).any() or (raw.isfinite() & ~counted.isfinite()).any()):
        raise UserError(
            f"reward component {name}: its values, {float(known.min())} to {float(known.max())}, are too large for "
            f"normalize_fn={component.normalize_fn} and weight={component.weight}; return smaller numbers"
        )
    return scaled


def _worst_filled(values: Tensor) -> Tensor:
    """Values (B,) with the smallest in place of NaN; all NaN if there is none."""
    return Groups.whole(values).filled(values)
