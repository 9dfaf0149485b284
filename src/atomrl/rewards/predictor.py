"""Predictors of properties, for `PredictorReward`: what one is, and the trained networks as such."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from atomrl.checkpoints.predictor import load_predictor
from atomrl.checkpoints.regressor import is_regressor, load_regressor
from atomrl.core.records import Structures
from atomrl.networks.molecule_regressor import MoleculeRegressor
from atomrl.networks.predictor import CrystalPredictor
from atomrl.rewards.scores import Scores
from atomrl.util.errors import UserError

UNREADABLE = "no_prediction"


class Predictor(Protocol):
    """A surrogate of properties."""

    def predict(self, batch: Structures) -> Mapping[str, Tensor | Scores]:
        """Properties of B samples by name, (B,) each; `Scores` where some samples have none."""


class NetworkPredictor:
    """A network as a `Predictor`; a sample that it cannot read has the reason `no_prediction`.

    Args:
        network: trained; it follows the samples to their device.
    """

    def __init__(self, network: CrystalPredictor | MoleculeRegressor) -> None:
        self.network = network

    @property
    def noun(self) -> str:
        """Of the samples that it reads."""
        return "molecules" if isinstance(self.network, MoleculeRegressor) else "crystals"

    @classmethod
    def load(cls, folder: str | Path, target: str) -> NetworkPredictor:
        """The network in a folder that `atomrl pretrain predictor` (crystals) or `regressor` (molecules) wrote.

        Args:
            folder: its place.
            target: a property that it must know.

        Raises:
            UserError: nothing there, damaged, no predictor, or one of other properties.
        """
        network: CrystalPredictor | MoleculeRegressor
        network = load_regressor(folder).network if is_regressor(folder) else load_predictor(folder)
        if target not in network.targets:
            raise unknown_target(target, network.targets, f"the predictor in {folder}")
        return cls(network)

    def predict(self, batch: Structures) -> dict[str, Scores]:
        """All properties."""
        predicted = self.network.to(batch.positions.device).predict(batch)
        return {
            name: Scores(values, tuple(UNREADABLE if missing else None for missing in values.isnan().tolist()))
            for name, values in predicted.items()
        }


def unknown_target(target: str, known: Iterable[str], predictor: str) -> UserError:
    """The error about a property that a predictor does not know."""
    return UserError(f"PredictorReward wants {target!r}; {predictor} knows {', '.join(sorted(known))}")
