"""What RDKit calls each molecule, against the others of a batch and a set of training molecules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch

from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.measures.measure import Metric, SoundSamples
from atomrl.workers.executor import Workers


class MoleculeNamesProvider:
    """`unique` and `novel` of molecules, 1 or 0; implements `MetricProvider`.

    Unique is the first valid molecule of its SMILES in a batch, novel a valid one whose SMILES no training molecule
    has. An invalid one is neither. SMILES are those of the evaluation, see `chemistry.rdkit`.

    Args:
        workers: of the run, or a number of processes; they start at the first batch.
        training: the known molecules; the set that ships if None.
    """

    names = ("unique", "novel")

    def __init__(self, workers: Workers | int | None = 1, training: TrainingSmiles | None = None) -> None:
        self._checker = MoleculeChecker(workers)
        self._given = training

    @cached_property
    def training(self) -> TrainingSmiles:
        """The known molecules."""
        return TrainingSmiles.load() if self._given is None else self._given

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """Both; an invalid molecule has neither, which is no failure."""
        smiles = [record.smiles for record in self._checker.check(batch.tensors)]
        valid = [place for place, text in enumerate(smiles) if text is not None]
        unique, novel = torch.zeros(2, len(smiles), dtype=torch.float64)
        first = {text: place for place, text in reversed(list(enumerate(smiles))) if text is not None}
        unique[sorted(first.values())] = 1.0
        known = self.training.contains([text for text in smiles if text is not None])
        novel[valid] = torch.from_numpy(~known).double()
        nothing: tuple[str | None, ...] = (None,) * len(smiles)
        return {"unique": Metric(unique, nothing), "novel": Metric(novel, nothing)}

    def close(self) -> None:
        """End the workers."""
        self._checker.close()
