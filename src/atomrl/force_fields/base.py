"""What force fields share: the outcome of an evaluation.

Worker processes import this module, so it must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from atomrl.core.protocols import ForceField
    from atomrl.force_fields.crystals import CrystalForceField

HOMO_LUMO_GAP, DIPOLE_MOMENT = "homo_lumo_gap", "dipole_moment"
"""Properties, by their names in `Evaluation.properties`: eV; Debye."""

NONFINITE = "nonfinite_result"
"""Reason of a result with NaN or infinity."""

CRYSTALS = "CRYSTAL_SPEC"
"""What a file of this folder assigns that is a force field of crystals, see `util.registry`."""


@dataclass(frozen=True)
class ForceFieldSpec:
    """How a configuration makes a force field of molecules; a file of this folder that is one has it as its `SPEC`.

    Attributes:
        name: for tables.
        make: out of the settings of the reward, {key: value}, with `device`; and, as keywords, what
            `reward.force_field={_target_: the file's name, key: value}` says.
    """

    name: str
    make: Callable[..., ForceField]


@dataclass(frozen=True)
class CrystalForceFieldSpec:
    """How a configuration makes a force field of crystals; a file of this folder that is one has it as `CRYSTAL_SPEC`.

    Attributes:
        make: out of the settings `workers`, `device`, `batch_size` and `gradients`, whether forces and stress are
            needed; and, as keywords, the options that the configuration gives.
        hull_file: name of the file with the hull of its energies, in the folder of a reference set.
    """

    make: Callable[..., CrystalForceField]
    hull_file: str


class Computed(NamedTuple):
    """What a task, or a network, computes of one molecule. A plain pair of energy and forces will do.

    Attributes:
        energy: eV.
        forces: eV/Å, (N, 3).
        properties: further numbers by name, as in `Evaluation`.
    """

    energy: float
    forces: NDArray[np.float64]
    properties: Mapping[str, float] = {}


@dataclass(frozen=True)
class Evaluation:
    """Energy and forces of one structure, or why there are none; implements `protocols.Result`.

    Attributes:
        energy: eV; NaN if failed.
        forces: eV/Å, (N, 3) without padding; NaN if failed.
        reason: None if it worked, else a short class of failure.
        flags: what is unusual about a structure that was evaluated, e.g. `odd_electrons`.
        properties: further numbers of a structure that was evaluated, by name; NaN for one that it does not have.
    """

    energy: float
    forces: NDArray[np.float64]
    reason: str | None
    flags: tuple[str, ...] = ()
    properties: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def failed(cls, atoms: int, reason: str, flags: tuple[str, ...] = ()) -> Evaluation:
        """The evaluation of a structure of this many atoms that has no result."""
        return cls(float("nan"), np.full((atoms, 3), np.nan), reason, flags)
