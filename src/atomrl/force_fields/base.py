"""What force fields share: the outcome of an evaluation.

Worker processes import this module, so it must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from atomrl.core.protocols import ForceField


@dataclass(frozen=True)
class ForceFieldSpec:
    """How a configuration makes a force field of molecules; a file of this folder that is one has it as its `SPEC`.

    Attributes:
        name: for tables.
        make: out of the settings of the reward, {key: value}.
    """

    name: str
    make: Callable[[Mapping[str, Any]], ForceField]


@dataclass(frozen=True)
class Evaluation:
    """Energy and forces of one structure, or why there are none; implements `protocols.Result`.

    Attributes:
        energy: eV; NaN if failed.
        forces: eV/Å, (N, 3) without padding; NaN if failed.
        reason: None if it worked, else a short class of failure.
        flags: what is unusual about a structure that was evaluated, e.g. `odd_electrons`.
    """

    energy: float
    forces: NDArray[np.float64]
    reason: str | None
    flags: tuple[str, ...] = ()

    @classmethod
    def failed(cls, atoms: int, reason: str, flags: tuple[str, ...] = ()) -> Evaluation:
        """The evaluation of a structure of this many atoms that has no result."""
        return cls(float("nan"), np.full((atoms, 3), np.nan), reason, flags)
