"""The conditions of `atomrl pretrain ldm`: what is asked for, out of the columns and elements of the crystals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator

from atomrl.checkpoints.crystal import CrystalBackbone
from atomrl.data.number_columns import MISSING
from atomrl.data.packed_crystals import CrystalSplits, PackedCrystals
from atomrl.networks.conditions import ELEMENTS, Condition, Kind, class_name
from atomrl.policies.crystal_conditioning import KnownCrystals
from atomrl.pretraining.property_columns import listed, mean_and_std, number_values
from atomrl.util.errors import UserError
from atomrl.util.option_words import Says
from atomrl.util.options import Options, contradiction

EXAMPLE = "[{name: band_gap, kind: value}]"


class ConditionOption(Options):
    """A condition, as `conditions=[{name: band_gap, kind: value}]` names it."""

    name: str
    """Name of the condition, by which it is asked for."""
    kind: Kind
    """Kind of the condition."""
    column: str | None = None
    """Column of the data that holds the values or classes; null: the one with the condition's name."""

    @property
    def said(self) -> str:
        """How to name another column, for messages."""
        return f"conditions=[{{name: {self.name}, kind: {self.kind}, column: ...}}]"


def _each_named(value: object) -> object:
    """Options out of a list of mappings; raises for one that is none, by itself, which pydantic would not name."""
    if not isinstance(value, list):
        return value
    try:
        return [
            ConditionOption.read({str(name): entry for name, entry in each.items()}) if isinstance(each, dict) else each
            for each in value
        ]
    except UserError as error:
        raise contradiction(f"{{at}}conditions: {error}; e.g. {EXAMPLE}") from error


ConditionOptions = Annotated[
    list[ConditionOption], BeforeValidator(_each_named), Says(f"must be a list, e.g. {EXAMPLE}")
]
"""A list of conditions, each `{name: ..., kind: ...}`."""


def require_same_conditions(options: Sequence[ConditionOption], start: CrystalBackbone) -> None:
    """Raise UserError for a backbone that is conditioned on something else already.

    Raises:
        UserError: as said.
    """
    if start.conditions is None:
        return
    has = [(condition.name, condition.kind) for condition in start.conditions.conditions]
    if has != [(option.name, option.kind) for option in options]:
        words = ", ".join(f"{{name: {name}, kind: {kind}}}" for name, kind in has)
        raise UserError(f"backbone={start.origin} is conditional: set conditions=[{words}]")


def conditions_of(
    options: Sequence[ConditionOption], splits: CrystalSplits, start: CrystalBackbone | None = None
) -> tuple[tuple[Condition, ...], CrystalSplits]:
    """The conditions, and the crystals with what they have of them as their only properties.

    Args:
        options: what is asked for.
        splits: the crystals, with all columns.
        start: backbone that is trained further; of its conditions scale and classes stay.

    Raises:
        UserError: a column is missing, says nothing, or is the same for all training crystals.
    """
    before = (
        {} if start is None or start.conditions is None else {each.name: each for each in start.conditions.conditions}
    )
    conditions = [before.get(option.name) or _condition(option, splits.train) for option in options]
    parts = []
    for split, crystals in (("training", splits.train), ("validation", splits.validation)):
        pairs = zip(options, conditions, strict=True)
        own = {o.name: _column(o, c, crystals, split) for o, c in pairs if not c.of_elements}
        parts.append(replace(crystals, properties=own, labels={}))
    return tuple(conditions), CrystalSplits(*parts)


def with_all_conditions(crystals: PackedCrystals) -> PackedCrystals:
    """The crystals of `conditions_of` that have all conditions: those that prompts can ask for.

    Raises:
        UserError: none has all of them.
    """
    values = np.stack([np.zeros(len(crystals)), *crystals.properties.values()])
    rows = np.flatnonzero(np.isfinite(values).all(0))
    if not len(rows):
        raise UserError(f"no training crystal has all of {', '.join(crystals.properties)}: nothing to ask for")
    return crystals.select(rows)


def known_crystals(conditions: Sequence[Condition], crystals: PackedCrystals, seed: int) -> KnownCrystals:
    """What these crystals have of the conditions, for prompts to come."""
    counts = None
    if any(condition.of_elements for condition in conditions):
        counts = torch.zeros(len(crystals), ELEMENTS, dtype=torch.int64)
        rows = torch.from_numpy(np.repeat(np.arange(len(crystals)), crystals.sizes))
        counts.index_put_((rows, torch.from_numpy(crystals.numbers)), torch.ones(len(rows)).long(), accumulate=True)
    return KnownCrystals.of(crystals.sizes, crystals.properties, counts, seed)


def _condition(option: ConditionOption, crystals: PackedCrystals) -> Condition:
    """A condition with the scale or the classes of the training crystals."""
    if option.kind == "value":
        values = number_values(crystals, option.name, option.column or option.name, "training", option.said)
        mean, std = mean_and_std(option.name, values)
        return Condition(name=option.name, kind=option.kind, mean=mean, std=std)
    if option.kind == "category":
        classes = tuple(sorted({text for text in _texts(option, crystals, "training").tolist() if text}))
        if len(classes) < 2:
            raise UserError(f"all training crystals have the same {option.name}, {''.join(classes)}: nothing to learn")
        return Condition(name=option.name, kind=option.kind, categories=len(classes), classes=classes)
    return Condition(name=option.name, kind=option.kind)


def _column(option: ConditionOption, condition: Condition, crystals: PackedCrystals, split: str) -> NDArray[np.float64]:
    """Values or numbers of classes, (C,), NaN where a crystal has none."""
    if option.kind == "value":
        return number_values(crystals, option.name, option.column or option.name, split, option.said)
    places = {name: float(place) for place, name in enumerate(condition.classes)}
    found = np.array([places.get(text, np.nan) for text in _texts(option, crystals, split).tolist()])
    known = int(np.isfinite(found).sum())
    print(f"{option.name}: {known:,} of {len(crystals):,} {split} crystals are of one of {len(places)} classes")
    return found


def _texts(option: ConditionOption, crystals: PackedCrystals, split: str) -> NDArray[np.object_]:
    """The classes of crystals as texts, (C,), empty where missing.

    Raises:
        UserError: there is no such column.
    """
    column = option.column or option.name
    if column in crystals.labels:
        stripped = [text.strip() for text in crystals.labels[column].tolist()]
        return np.array(["" if text in MISSING else text for text in stripped], dtype=object)
    if column in crystals.properties:
        values = crystals.properties[column].tolist()
        return np.array([class_name(value) if np.isfinite(value) else "" for value in values], dtype=object)
    there = listed({**crystals.properties, **crystals.labels})
    raise UserError(f"the {split} crystals have no column {column!r}, they have {there}: name another, {option.said}")
