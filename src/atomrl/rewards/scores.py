"""Values of which some may be missing, each with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atomrl.core.table_check import unusual
from atomrl.util.errors import UserError

MASKED = "masked"
"""Reason of an entry that a masked array hides."""


@dataclass(frozen=True)
class Scores:
    """What `compute` may return instead of a tensor, if some samples have no value.

    Attributes:
        values: (B,); NaN where there is none.
        reasons: why, one entry per sample, None where there is a value. A sample with a reason has failed: a number
            beside it counts as NaN.
    """

    values: Tensor
    reasons: tuple[str | None, ...]


def as_scores(answer: Any, name: str) -> Tensor | Scores:
    """What `compute` of the component `name` returned: a tensor or Scores as it is, an array or a list as a tensor.

    A masked array without Scores becomes these: NaN where it is masked, with the reason `masked`.

    Raises:
        UserError: it is none of these, holds complex numbers or is no plain tensor; or a reason is no text.
    """
    if isinstance(answer, Scores):
        return Scores(_as_tensor(answer.values, name), _as_reasons(answer.reasons, name))
    if isinstance(answer, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(answer).ravel().tolist()
        return Scores(_as_tensor(answer, name), tuple(MASKED if gone else None for gone in masked))
    return _as_tensor(answer, name)


def _as_reasons(reasons: Any, name: str) -> tuple[str | None, ...]:
    """Texts, and None where there is a value, as a tuple."""
    found = tuple(reasons) if isinstance(reasons, Iterable) and not isinstance(reasons, str) else None
    if found is None or not all(one is None or (isinstance(one, str) and one) for one in found):
        raise UserError(f"reward component {name}: reasons must be a text or None for each sample, got {reasons!r}")
    return found


def _as_tensor(answer: Any, name: str) -> Tensor:
    """Real numbers as a tensor; a list may hold a network's answers, one by one."""
    if answer is None:
        raise UserError(
            f"reward component {name}: got None, as from a function without `return`; return one number per structure"
        )
    numbers = answer
    if isinstance(answer, list | tuple):
        numbers = [one.detach().cpu() if isinstance(one, Tensor) else one for one in answer]
    try:
        if numbers.is_complex() if isinstance(numbers, Tensor) else np.iscomplexobj(numbers):
            raise UserError(f"reward component {name}: got complex numbers; return real ones")
        if isinstance(numbers, Tensor):
            if kind := unusual(numbers):
                raise UserError(f"reward component {name}: got {kind}; return a dense one")
            return numbers
        if isinstance(numbers, np.ma.MaskedArray):
            numbers = np.ma.filled(numbers.astype(np.float64), np.nan)
        return torch.from_numpy(np.array(numbers, dtype=np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"reward component {name}: got {type(answer).__name__}, which is not an array of numbers ({error}); "
            "return one number per structure"
        ) from error
