"""What a conditional model is conditioned on, in its card: names, and the distribution of each property by size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from atomrl.checkpoints.folder import finite_numbers
from atomrl.core.conditioning import Property, PropertyConditioning
from atomrl.util.errors import UserError

NAMES, KNOWN = "conditioning", "properties"
"""Entries of a card: the properties in the order of the context, and those whose distribution is known."""


def conditioning_entries(conditioning: PropertyConditioning | None) -> dict[str, Any]:
    """A card's entries; none for an unconditional model. The bins of a size are one text, one line of the file."""
    if conditioning is None:
        return {}
    known = {name: _entry(found) for name, found in conditioning.known.items()}
    return {NAMES: list(conditioning.names), **({KNOWN: known} if known else {})}


def conditioning_of(card: Mapping[str, Any], features: int, origin: str) -> PropertyConditioning | None:
    """What the card of a model with so many context columns says; None for an unconditional model.

    Raises:
        UserError: names and columns do not agree, or a distribution is damaged.
    """
    names = card.get(NAMES, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != features:
        raise UserError(f"{origin}: its card's {NAMES}={names!r} must name the {features} columns of its context")
    if not names:
        return None
    known = card.get(KNOWN, {})
    try:
        return PropertyConditioning(tuple(names), {str(name): _property(entry) for name, entry in known.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{origin}: its card's {KNOWN} are damaged ({type(error).__name__}: {error})") from error


def _entry(found: Property) -> dict[str, Any]:
    """One property as JSON holds it."""
    return {
        "unit": found.unit,
        "mean": found.mean,
        "mad": found.mad,
        "sizes": found.sizes.tolist(),
        "low": found.low.tolist(),
        "high": found.high.tolist(),
        "counts": [" ".join(f"{count:g}" for count in row) for row in found.counts.tolist()],
    }


def _property(entry: Mapping[str, Any]) -> Property:
    """One property; raises ValueError and the like for an entry that is none."""
    sizes = torch.tensor([int(size) for size in entry["sizes"]])
    low, high = finite_numbers(entry["low"]), finite_numbers(entry["high"])
    counts = torch.stack([finite_numbers(row.split()) for row in entry["counts"]])
    mean, mad = finite_numbers([entry["mean"], entry["mad"]]).tolist()
    if not len(sizes) == len(low) == len(high) == len(counts) or bool((sizes.diff() <= 0).any()):
        raise ValueError("a row for each size, and sizes ascending")
    if not mad > 0 or bool((counts < 0).any() or (counts.sum(1) <= 0).any() or (low > high).any()):
        raise ValueError("a deviation above 0, low below high, and a structure for each size")
    return Property(str(entry["unit"]), mean, mad, sizes, low, high, counts)
