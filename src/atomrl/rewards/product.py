"""Reward components multiplied: a sample earns only as far as it is good by all of them.

    r = u_1^w_1 u_2^w_2 ...

u_i is what component i computed, normalised over the batch as its `normalize_fn` says, w_i its weight.

| case | what |
|---|---|
| a component has no value for a sample | neither has the product: NaN, and `train.failed` decides |
| the cell is not sound | u_i follows from the component's `failed_value`; without one, as above |
| `norm` finds no spread | the component tells nothing apart and counts as 1 |
| a component of weight 0 | it is computed and logged, and has no part in the product |
| a value below 0 | refused: such a component needs `normalize_fn: norm`, or `clip` to a range from 0 |

`norm` fixes most of its component's mean, so that the mean of r cannot be compared between iterations if one has it;
`lasting` is what can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from atomrl.rewards.base import RewardComponent
from atomrl.util.errors import UserError

PRODUCT = "product"
"""Name of its channel."""

REMEDY = "give it normalize_fn: norm, or clip with a clip_range from 0"


def check_factors(components: Sequence[RewardComponent]) -> None:
    """Raise UserError for components that cannot be multiplied, as far as their options say so.

    Raises:
        UserError: a weight is negative, or a normalisation has negative results.
    """
    for component in components:
        if component.weight < 0:
            raise UserError(
                f"combine=product raises {component.name} to the power of its weight, {component.weight}: must be 0 "
                "or more"
            )
        if not component.weight:
            continue
        below = component.normalize_fn == "clip" and component.clip_range[0] < 0
        if component.normalize_fn in {"std", "subtract_mean"} or below:
            raise UserError(
                f"combine=product multiplies values from 0 up, and normalize_fn={component.normalize_fn} of "
                f"{component.name} makes negative ones: {REMEDY}"
            )


def multiplied(scaled: Mapping[str, Tensor], components: Sequence[RewardComponent]) -> Tensor:
    """The product of components' normalised values, (B,); NaN where one has none. Those of weight 0 do not matter.

    Args:
        scaled: {name: (B,)} of each component, in order.
        components: they.

    Raises:
        UserError: a value is negative, or the product too large for a number.
    """
    product = torch.ones_like(next(iter(scaled.values())))
    for (name, values), component in zip(scaled.items(), components, strict=True):
        if not component.weight:
            continue
        known = values[values.isfinite()]
        if bool((known < 0).any()):
            raise UserError(
                f"reward component {name}: {float(known.min()):.4g}, and combine=product multiplies values from 0 up: "
                f"{REMEDY}"
            )
        flat = component.normalize_fn == "norm" and not bool((known > 0).any())
        factor = torch.where(values.isfinite(), 1.0 if flat else values**component.weight, torch.nan)
        product = product * factor
    if bool(product.isinf().any()):
        raise UserError(f"combine=product: the product of {', '.join(scaled)} is too large: return smaller numbers")
    return product


def lasting(scaled: Mapping[str, Tensor], raw: Mapping[str, Tensor], components: Sequence[RewardComponent]) -> Tensor:
    """What of the product can be compared between iterations, (B,); larger is better; NaN where a part has no value.

    The product of the components that the rest of the batch does not change, those without `norm`, plus weight times
    raw value of each other one.

    Args:
        scaled: as of `multiplied`.
        raw: {name: (B,)}, what each component computed.
        components: they.
    """
    parts = dict(zip(scaled, components, strict=True))
    fixed = {name: part for name, part in parts.items() if part.weight and part.normalize_fn == "norm"}
    kept = {name: part for name, part in parts.items() if part.weight and name not in fixed}
    columns = [part.weight * raw[name] for name, part in fixed.items()]
    if kept or not fixed:
        columns.append(multiplied({name: scaled[name] for name in kept or parts}, list((kept or parts).values())))
    return torch.stack(columns).sum(0)
