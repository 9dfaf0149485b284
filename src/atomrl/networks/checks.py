"""What no network can be made of: numbers out of range in its configuration."""

from __future__ import annotations

import math

from atomrl.util.errors import UserError


def at_least(low: float, **numbers: float) -> None:
    """Refuse numbers below `low`, and those that are not finite.

    Raises:
        UserError: naming the first.
    """
    for name, number in numbers.items():
        if not low <= number < math.inf:
            finite = "finite and " if isinstance(number, float) else ""
            raise UserError(f"{name}={number}: must be {finite}at least {low:g}")


def positive(**numbers: float) -> None:
    """Refuse numbers that are not above 0 and finite.

    Raises:
        UserError: naming the first.
    """
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise UserError(f"{name}={number}: must be positive and finite")


def shared_by_heads(width: int, heads: int) -> None:
    """Refuse a width that the attention's heads cannot share, or the index embedding's sines and cosines.

    Raises:
        UserError: it is one.
    """
    if width % heads or width % 2:
        raise UserError(f"a width of {width} with {heads} heads: it must be even and a multiple of the heads")
