"""Columns of the training crystals that a model learns from: found by name, counted, and scaled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from atomrl.data.packed_crystals import PackedCrystals
from atomrl.util.errors import UserError


def number_values(crystals: PackedCrystals, name: str, column: str, split: str, another: str) -> NDArray[np.float64]:
    """The values of a column of numbers, (C,), NaN where a crystal has none; says how many have one.

    Args:
        crystals: C of them, with all their properties.
        name: of the property.
        column: that holds it.
        split: name of these crystals, for messages.
        another: option that names another column, for messages.

    Raises:
        UserError: the column is missing or has no finite value.
    """
    if column in crystals.refused:
        raise UserError(
            f"the {split} crystals have a column {column!r} that is not a property, since {crystals.refused[column]}: "
            "write numbers without a unit, and leave missing ones empty"
        )
    if column not in crystals.properties:
        raise UserError(
            f"the {split} crystals have no property {column!r}, they have {listed(crystals.properties)}: "
            f"add a column of numbers of this name, or name another, {another}"
        )
    values = crystals.properties[column]
    known = int(np.isfinite(values).sum())
    if not known:
        raise UserError(f"the {split} crystals have a column {column!r} without a number: nothing to learn")
    print(f"{name}: {known:,} of {len(crystals):,} {split} crystals have it")
    return np.where(np.isfinite(values), values, np.nan)


def mean_and_std(name: str, values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of a property over the training crystals that have it.

    Raises:
        UserError: it is the same for all.
    """
    unit = float(np.nanmax(np.abs(values))) or 1.0  # neither squares nor sums may leave float64
    mean, spread = unit * float(np.nanmean(values / unit)), unit * float(np.nanstd(values / unit))
    if np.nanmin(values) == np.nanmax(values) or not spread > 0:
        raise UserError(f"all training crystals have the same {name}, {mean:g}: nothing to learn")
    return mean, spread


def listed(names: Mapping[str, object]) -> str:
    """Names for a message."""
    return ", ".join(sorted(names)) or "none"
