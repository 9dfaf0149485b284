"""What the training crystals of a conditional model have of its conditions, in its card; each column one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from atomrl.checkpoints.folder import finite_numbers
from atomrl.networks.conditions import Condition
from atomrl.policies.crystal_conditioning import KnownCrystals
from atomrl.util.errors import UserError

ENTRY = "known_crystals"


def known_entries(known: KnownCrystals | None) -> dict[str, Any]:
    """A card's entries; none where nothing is known."""
    if known is None:
        return {}
    columns = {name: " ".join(f"{value!r}" for value in values.tolist()) for name, values in known.numbers.items()}
    sizes = " ".join(map(str, known.sizes.tolist()))
    return {ENTRY: {"sizes": sizes, "numbers": columns, "formulas": " ".join(known.formulas)}}


def known_of(card: Mapping[str, Any], conditions: Sequence[Condition], origin: str) -> KnownCrystals | None:
    """What the card of a model of these conditions says; None if it says nothing.

    Raises:
        UserError: it is damaged.
    """
    if ENTRY not in card:
        return None
    try:
        return _known(card[ENTRY], conditions)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{origin}: its card's {ENTRY} are damaged ({type(error).__name__}: {error})") from error


def _known(entry: Mapping[str, Any], conditions: Sequence[Condition]) -> KnownCrystals:
    """The crystals of an entry; raises ValueError and the like for one that is damaged."""
    sizes = torch.tensor([int(size) for size in entry["sizes"].split()])
    named = [condition.name for condition in conditions if not condition.of_elements]
    numbers = {name: finite_numbers(entry["numbers"][name].split()) for name in named}
    formulas = tuple(entry["formulas"].split())
    columns = [*map(len, numbers.values()), *([len(formulas)] if any(each.of_elements for each in conditions) else [])]
    if not len(sizes) or bool((sizes.diff() < 0).any()) or set(columns) - {len(sizes)}:
        raise ValueError("an entry of each column for each crystal, and sizes ascending")
    return KnownCrystals(sizes, numbers, formulas)
