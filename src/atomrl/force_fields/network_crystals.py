"""Crystals by a network in worker processes, and if it must in an environment of its own; see `network_workers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atomrl.force_fields.crystals import (
    CrystalEvaluation,
    CrystalForceField,
    checked,
    failed,
    unknown_gradients,
)
from atomrl.force_fields.mp2020 import MP2020, mp2020_correction
from atomrl.force_fields.network_workers import Network
from atomrl.structures.cells import Crystal
from atomrl.util.errors import UserError
from atomrl.workers.executor import Executor

UNCORRECTED = "none"
"""Name of the scheme of energies that are taken as the network gives them."""

CORRECTIONS = (UNCORRECTED, MP2020)


class CrystalLots:
    """By a task of workers that takes a list of crystals; implements `crystals.ComputesCrystals`.

    Reasons: `nonfinite_result`, `timeout`, `worker_died`, and `error` with the exception.

    Args:
        size: crystals evaluated together.
        executor: of the task. It takes numbers (N,), fractional coordinates (N, 3) and lattice (3, 3) of each crystal,
            a plain tuple, since its environment may know no class of ours that needs pymatgen; it returns energy of the
            cell (eV), forces (eV/Å, (N, 3)) and stress (eV/Å³, (3, 3)) of each, both None where nobody asked for them.
        correction: added to the energies, one of `CORRECTIONS`.
    """

    def __init__(self, size: int, executor: Executor, correction: str) -> None:
        self._size, self._executor, self._correction = size, executor, correction

    def compute(self, crystals: Sequence[Crystal]) -> list[CrystalEvaluation]:
        """One evaluation per crystal, in order."""
        outcomes = self._executor.map_lots([tuple(crystal) for crystal in crystals], self._size)
        return [
            failed(len(crystal.numbers), outcome.reason)
            if outcome.reason is not None
            else self._evaluation(crystal, *outcome.value)
            for crystal, outcome in zip(crystals, outcomes, strict=True)
        ]

    def close(self) -> None:
        """End the workers."""
        self._executor.close()

    def _evaluation(self, crystal: Crystal, energy: float, forces: Any, stress: Any) -> CrystalEvaluation:
        """What the task said, corrected."""
        if self._correction == MP2020:
            energy += mp2020_correction(crystal)
        return checked(energy, unknown_gradients(len(crystal.numbers)) if forces is None else forces, stress)


class NetworkCrystals(CrystalForceField):
    """Energies, and if asked for forces and stress, of crystals by a network in worker processes, batched.

    Args:
        network: its workers; its name begins `model_id`. Tasks of its module are `describe_crystals(item, **settings)`,
            which returns the atomic numbers that the model knows and a hash of it, and `evaluate_crystals(items,
            **settings)`, see `CrystalLots`.
        correction: added to the energies: `none`, or `MP2020` for a network that learned the uncorrected energies of
            Materials Project.

    Attributes:
        elements: atomic numbers that the model knows.
        model_id: name and hash of the model.

    Raises:
        UserError: an unknown correction, or the model cannot be loaded.
    """

    def __init__(self, network: Network, correction: str) -> None:
        if correction not in CORRECTIONS:
            raise UserError(f"correction={correction}: must be one of {', '.join(CORRECTIONS)}")
        elements, digest = network.described("describe_crystals")
        self.elements, self.model_id, self.correction = frozenset(elements), f"{network.name}-{digest}", correction
        super().__init__(CrystalLots(network.batch_size, network.executor("evaluate_crystals"), correction))
