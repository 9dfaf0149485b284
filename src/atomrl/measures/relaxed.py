"""Energies above the hull of samples that are relaxed first."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from atomrl.chemistry.hull import Hull
from atomrl.force_fields.relax_batch import relax_batch
from atomrl.measures.measure import RELAXED, Metric, SoundSamples
from atomrl.measures.physics import HullForceField
from atomrl.structures.crystals import compositions


class RelaxedHullProvider:
    """Energies above the hull after some steps of relaxation; implements `MetricProvider`.

    Values are eV/atom, of each sample where it is after the last step, converged or not; NaN with the reason of the
    force field, of the hull, or `slow`. The metric holds the relaxed crystals.

    Args:
        force_field: of the energies, with forces and stress; `close` closes it too.
        hull: of the same model and correction.
        steps: at most, see `relax_batch.relax_batch`.
        max_seconds: for all samples of a batch together.

    Raises:
        UserError: the hull is of another model or correction.
    """

    def __init__(self, force_field: HullForceField, hull: Hull, steps: int, max_seconds: float = math.inf) -> None:
        hull.require(force_field.model_id, force_field.correction)
        self.force_field, self.hull, self.steps, self.max_seconds = force_field, hull, steps, max_seconds
        self.names = (f"{RELAXED}{steps}",)

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """The metric, (B,).

        Raises:
            UserError: the force field gives no stress.
        """
        relaxed = relax_batch(self.force_field, batch.tensors, self.steps, max_seconds=self.max_seconds)
        sizes = relaxed.structures.sizes.clamp(min=1).numpy()
        above, hull_reasons = self.hull.energy_above_hull(compositions(batch.tensors), relaxed.energies / sizes)
        reasons = tuple(first or second for first, second in zip(relaxed.reasons, hull_reasons, strict=True))
        values = torch.from_numpy(np.asarray(above))
        return {self.names[0]: Metric(values, reasons, structures=relaxed.structures)}

    def close(self) -> None:
        """Close the force field."""
        self.force_field.close()
