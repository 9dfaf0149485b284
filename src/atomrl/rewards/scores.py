"""Values of which some may be missing, each with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atomrl.util.errors import UserError


@dataclass(frozen=True)
class Scores:
    """What `compute` may return instead of a tensor, if some samples have no value.

    Attributes:
        values: (B,); NaN where there is none.
        reasons: why, one entry per sample, None where there is a value.
    """

    values: Tensor
    reasons: tuple[str | None, ...]


def as_scores(answer: Any, name: str) -> Tensor | Scores:
    """What `compute` of the component `name` returned: a tensor or Scores as it is, an array or a list as a tensor.

    Raises:
        UserError: it is none of these, or holds complex numbers.
    """
    if isinstance(answer, Scores):
        return Scores(_as_tensor(answer.values, name), answer.reasons)
    return _as_tensor(answer, name)


def _as_tensor(answer: Any, name: str) -> Tensor:
    """Real numbers as a tensor."""
    if answer is None:
        raise UserError(
            f"reward component {name}: got None, as from a function without `return`; return one number per structure"
        )
    if answer.is_complex() if isinstance(answer, Tensor) else np.iscomplexobj(answer):
        raise UserError(f"reward component {name}: got complex numbers; return real ones")
    if isinstance(answer, Tensor):
        return answer
    try:
        return torch.from_numpy(np.array(answer, dtype=np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"reward component {name}: got {type(answer).__name__}, which is not an array of numbers ({error}); "
            "return one number per structure"
        ) from error
