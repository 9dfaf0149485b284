"""Crystal structure prediction: crystals of asked compositions by a model that is conditioned on composition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atomrl.core.protocols import Model
from atomrl.core.random import generator
from atomrl.core.records import Prompts, Structures
from atomrl.evaluation.evaluate import SamplePlan, ready_policy
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.rejection import Passed, until_accepted
from atomrl.networks.conditions import counts_by_element, formula_counts, formula_unit
from atomrl.policies.crystal_conditioning import CrystalConditioning
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class Composition:
    """What is asked for.

    Attributes:
        formula: as it was given.
        counts: atoms by element of the reduced formula, (ELEMENTS,) int64; column = Z.
        units: of the formula in a cell, each equally often; none: as the numbers of atoms of the training crystals have
            them.
    """

    formula: str
    counts: Tensor
    units: tuple[int, ...] = ()

    @classmethod
    def of(cls, formula: str, units: Sequence[int] = ()) -> Composition:
        """Of a formula such as `SrTiO3`; `Ti2O4` is `TiO2`.

        Raises:
            UserError: it is no formula, or names an unknown element.
        """
        return cls(formula, formula_unit(formula_counts(formula)), tuple(units))

    @property
    def atoms(self) -> int:
        """Of one formula unit."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Found:
    """What came of a composition.

    Attributes:
        composition: that was asked for.
        passed: which samples have it, one for each that was asked for, bool.
        drawn: walks that they took.
        structures: samples that have it, in their order.
        others: the last walk of each sample that never had it.
    """

    composition: Composition
    passed: Tensor
    drawn: int
    structures: Structures
    others: Structures

    @property
    def asked(self) -> int:
        """Samples."""
        return len(self.passed)


@dataclass(frozen=True)
class AskedCompositions:
    """Samples of some compositions, as many of each.

    Attributes:
        compositions: that are asked for.
        each: samples of each.
        prompts: a row per sample, those of a composition adjacent and in order of size.
    """

    compositions: Sequence[Composition]
    each: int
    prompts: Prompts

    @classmethod
    def of(cls, model: Model, compositions: Sequence[Composition], plan: SamplePlan) -> AskedCompositions:
        """Arguments and errors as of `predict_structures`."""
        conditioning, name = composition_condition(model)
        if name in plan.asked:
            raise UserError(f"{name}={plan.asked[name]}: the compositions say this already; leave it out")
        parts = []
        for number, wanted in enumerate(compositions):
            weights = _sizes(wanted, model)
            rng = generator("cpu", plan.seed, number, "formula units")
            chances = torch.tensor(list(weights.values()), dtype=torch.float64)
            drawn = torch.multinomial(chances, plan.count, replacement=True, generator=rng)
            sizes = torch.tensor(list(weights))[drawn].sort().values
            asked = conditioning.asking({**plan.asked, name: wanted.formula})
            asked.require(sizes.unique().tolist())
            ids = number * plan.count + torch.arange(plan.count)
            parts.append(Prompts(plan.seed, 0, sizes, ids, ids, asked.context(sizes, ids, plan.seed, 0)))
        return cls(compositions, plan.count, Prompts.concatenate(parts))

    def rows(self, number: int) -> slice:
        """Of the samples of the composition of that number."""
        return slice(number * self.each, (number + 1) * self.each)

    def numbers(self, prompts: Prompts) -> Tensor:
        """Which composition each of some draws of the samples asks for, (B,) int64."""
        return prompts.group_ids // self.each

    def has_composition(self, structures: Structures, prompts: Prompts) -> Tensor:
        """Which of some draws of the samples have what was asked for, (B,) bool."""
        counts = counts_by_element(structures.numbers)
        unit = torch.stack([wanted.counts for wanted in self.compositions])[self.numbers(prompts)]
        return (counts == unit * (counts.sum(1) // unit.sum(1))[:, None]).all(1)


def predict_structures(
    model: Model,
    compositions: Sequence[Composition],
    plan: SamplePlan,
    tries: int,
    device: torch.device,
    kept: KeptSamples | None = None,
) -> list[Found]:
    """Draw `plan.count` samples of each composition; one that has another is drawn again, up to `tries` walks in all.

    Args:
        model: conditioned on composition.
        compositions: that are asked for.
        plan: how many of each, how to walk, and what else to ask for.
        tries: walks of a sample at most.
        device: to sample on.
        kept: batches of a command that was stopped, which are not drawn again; new ones are added.

    Raises:
        UserError: the model is not conditioned on composition, or knows no crystal of as many atoms; or the plan asks
            for a composition too.
    """
    asked = AskedCompositions.of(model, compositions, plan)
    policy = ready_policy(model, device)
    passed = until_accepted(policy, asked.prompts.to(device), plan, tries, asked.has_composition, kept)
    return [_found(wanted, passed, asked.rows(number)) for number, wanted in enumerate(compositions)]


def composition_condition(model: Model) -> tuple[CrystalConditioning, str]:
    """What prompts ask of a model that is conditioned on composition, and that condition's name.

    Raises:
        UserError: it is not.
    """
    conditioning = model.conditioning
    if isinstance(conditioning, CrystalConditioning):
        for condition in conditioning.conditions:
            if condition.kind == "composition":
                return conditioning, condition.name
    raise UserError(
        f"{model.origin} is not conditioned on composition: make a model that is, atomrl pretrain ldm "
        "'conditions=[{name: composition, kind: composition}]'"
    )


def _found(wanted: Composition, passed: Passed, rows: slice) -> Found:
    """What came of the samples at some rows."""
    structures, accepted = passed.structures[rows], passed.passed[rows]
    walks = int(passed.walks[rows].sum())
    return Found(wanted, accepted, walks, structures[accepted], structures[~accepted])


def _sizes(wanted: Composition, model: Model) -> Mapping[int, int]:
    """Weight of each number of atoms that a cell of a composition may have.

    Raises:
        UserError: the model knows none of them.
    """
    known = {size: count for size, count in sorted(model.sizes.items()) if count}
    asked = {units * wanted.atoms: 1 for units in wanted.units}
    if strange := [size for size in asked if size not in known]:
        raise UserError(
            f"{wanted.formula}: cells of {', '.join(map(str, strange))} atoms (--formula-units), and the model was "
            f"trained on {', '.join(map(str, known))} atoms"
        )
    fitting = asked or {size: count for size, count in known.items() if size % wanted.atoms == 0}
    if not fitting:
        raise UserError(
            f"{wanted.formula}: {wanted.atoms} atoms in a formula unit, and the model was trained on cells of "
            f"{', '.join(map(str, known))} atoms, of which none is a multiple"
        )
    return fitting
