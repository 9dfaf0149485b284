"""Crystals of one element, left out of what is rewarded."""

from __future__ import annotations

from collections.abc import Sequence

from atomrl.core.records import Structures
from atomrl.structures.crystals import check_cells

PURE_ELEMENT = "pure_element"


def check_compounds(structures: Structures) -> list[str | None]:
    """As `check_cells`, and a crystal of one element has the reason `pure_element`: what a reward takes as its check.

    Such a sample then reaches no component. It is worth what one with an unsound cell is worth.
    """
    numbers, mask = structures.numbers, structures.mask.bool()
    pure = ((numbers == numbers[:, :1]) | ~mask).all(1).tolist()
    checked: Sequence[str | None] = check_cells(structures)
    return [PURE_ELEMENT if reason is None and alone else reason for reason, alone in zip(checked, pure, strict=True)]
