"""Training of a regressor of a molecular property (Lightning module)."""

from __future__ import annotations

from torch import Tensor

from atomrl.data.batches import MoleculeBatch
from atomrl.networks.molecule_regressor import MoleculeRegressor
from atomrl.pretraining.base import PretrainConfig, Pretraining


class PretrainRegressor(Pretraining[MoleculeRegressor, MoleculeBatch]):
    """Trains a `MoleculeRegressor` on the absolute error.

    Args:
        network: with its linear part fitted; a checkpoint holds that too.
        train: how to train it.
    """

    def __init__(self, network: MoleculeRegressor, train: PretrainConfig) -> None:
        super().__init__(network, train)
        settings = {"model": network.config.model_dump(), "train": train.model_dump()}
        self.save_hyperparameters({**settings, "targets": list(network.targets)})

    def losses(self, network: MoleculeRegressor, batch: MoleculeBatch, purpose: str) -> dict[str, Tensor]:
        """Mean absolute error, `loss` in units of the linear part's spread, `mae` in the property's."""
        predicted = network(batch.numbers, batch.positions, batch.mask)
        error = (predicted - batch.properties[network.target].to(predicted.dtype)).abs().mean()
        return {"loss": error / network.scale, "mae": error.detach()}
