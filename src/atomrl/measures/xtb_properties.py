"""Properties of molecules that GFN2-xTB computes together with their energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from atomrl.core.records import Structures
from atomrl.force_fields.base import DIPOLE_MOMENT, HOMO_LUMO_GAP, Evaluation
from atomrl.measures.measure import Metric, SoundSamples

NO_EMPTY_ORBITAL = "no_empty_orbital"


class GivesProperties(Protocol):
    """A force field whose evaluations have properties."""

    def evaluate(self, structures: Structures) -> Sequence[Evaluation]:
        """One result per structure, in order."""

    def close(self) -> None:
        """Give back workers."""


class XTBPropertiesProvider:
    """Gap and dipole moment of molecules; implements `MetricProvider`.

    | name | values |
    |---|---|
    | `homo_lumo_gap` | eV, of GFN2's orbitals; NaN with the reason `no_empty_orbital` where all are occupied |
    | `dipole_moment` | its length, Debye |

    A molecule that the force field cannot evaluate has neither, with the force field's reason.

    Args:
        force_field: GFN2-xTB; `close` closes it too.
    """

    names = (HOMO_LUMO_GAP, DIPOLE_MOMENT)

    def __init__(self, force_field: GivesProperties) -> None:
        self.force_field = force_field

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """Both, (B,) each."""
        results = self.force_field.evaluate(batch.tensors)
        measured = {}
        for name in self.names:
            values = torch.tensor([result.properties.get(name, torch.nan) for result in results], dtype=torch.float64)
            missing = [NO_EMPTY_ORBITAL if unknown else None for unknown in values.isnan().tolist()]
            reasons = [result.reason or reason for result, reason in zip(results, missing, strict=True)]
            measured[name] = Metric(values, tuple(reasons))
        return measured

    def close(self) -> None:
        """Close the force field."""
        self.force_field.close()
