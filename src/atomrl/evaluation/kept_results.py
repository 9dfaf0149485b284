"""Judges whose answers an evaluation that was stopped keeps: force fields in lots, and the matcher as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from atomrl.core.protocols import ForceField, Result
from atomrl.core.records import Structures
from atomrl.evaluation.kept_samples import KeptBatches, KeptSamples, Stored
from atomrl.force_fields.base import Evaluation
from atomrl.measures.measure import Metric, MetricProvider, SoundSamples
from atomrl.measures.physics import HullForceField
from atomrl.util.progress import bar
from atomrl.workers.executor import PASSING, may_pass

LEAST = 256
"""Samples of a lot, at least: seconds of work, all that a stop can cost."""


def lot_size(workers: int, batch: int) -> int:
    """Samples of a lot, so that so many workers, which get `batch` at a time, have enough to do."""
    return max(LEAST, 4 * workers * batch)


def evaluate_in_lots(
    force_field: ForceField, structures: Structures, kept: KeptSamples | None, said: str, lot: int, description: str
) -> list[Evaluation]:
    """What a force field says of B structures, in order, with a progress bar.

    Args:
        force_field: that is asked.
        structures: all of them.
        kept: of an evaluation that was stopped; lots that are new are added, but for one in which a worker was lost, or
            the force field raised an exception.
        said: all that the answers depend on besides the structures, e.g. the force field's name and options.
        lot: samples that it is asked about at a time.
        description: for the progress bar.
    """
    before = None if kept is None else kept.made_from(structures, f"{said}; in lots of {lot}")
    found: list[Evaluation] = []
    with bar(range(0), description, len(structures)) as progress:
        for index, rows in enumerate(torch.arange(len(structures)).split(lot)):
            part = structures[rows.to(structures.numbers.device)]
            found += _answers(force_field, part, before, index)
            progress.update(len(rows))
    return found


def _answers(force_field: ForceField, part: Structures, before: KeptBatches | None, index: int) -> list[Evaluation]:
    """Of one lot."""
    if before is None:
        return [_evaluation(result) for result in force_field.evaluate(part)]
    stored = before.get_stored(index, lambda: _stored(force_field.evaluate(part)), ("energies", "forces"))
    forces = stored.tensors["forces"].split(part.sizes.tolist())
    return [
        Evaluation(energy, of_atoms.numpy(), reason, tuple(flags), properties)
        for energy, of_atoms, (reason, flags, properties) in zip(
            stored.tensors["energies"].tolist(), forces, stored.notes, strict=True
        )
    ]


def _evaluation(result: Result) -> Evaluation:
    """A result as a plain record."""
    if isinstance(result, Evaluation):
        return result
    return Evaluation(result.energy, result.forces, result.reason)


def _stored(results: Sequence[Result]) -> Stored:
    """Results as a file holds them."""
    plain = [_evaluation(result) for result in results]
    forces = [torch.as_tensor(result.forces, dtype=torch.float64).reshape(-1, 3) for result in plain]
    return Stored(
        {
            "energies": torch.tensor([result.energy for result in plain], dtype=torch.float64),
            "forces": torch.cat([torch.zeros(0, 3, dtype=torch.float64), *forces]),
        },
        [(result.reason, result.flags, dict(result.properties)) for result in plain],
        not any(may_pass(result.reason) for result in plain),
    )


class KeptForceField:
    """A force field of crystals that is asked in lots; implements `measures.physics.HullForceField`.

    Args:
        force_field: that is asked; whoever made it closes it.
        kept, lot, description: as in `evaluate_in_lots`.
    """

    def __init__(self, force_field: HullForceField, kept: KeptSamples | None, lot: int, description: str) -> None:
        self.model_id, self.correction = force_field.model_id, force_field.correction
        self.elements = force_field.elements
        self._force_field, self._kept, self._lot, self._description = force_field, kept, lot, description

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        """One result per structure, in order."""
        said = f"energies by {self.model_id}, {self.correction}"
        return evaluate_in_lots(self._force_field, structures, self._kept, said, self._lot, self._description)

    def close(self) -> None:
        """Nothing: whoever made the force field closes it."""


@dataclass(frozen=True)
class KeptProvider:
    """Metrics of samples that are compared with each other, kept as a whole; implements `MetricProvider`.

    Attributes:
        provider: that measures; whoever made it closes it.
        kept: of an evaluation that was stopped.
        said: all that the metrics depend on besides the samples.
    """

    provider: MetricProvider
    kept: KeptSamples | None
    said: str

    @property
    def names(self) -> tuple[str, ...]:
        """Of the provider."""
        return self.provider.names

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """All its metrics."""
        if self.kept is None:
            return self.provider.measure(batch)
        stored = self.kept.made_from(batch.tensors, self.said).get_stored(0, lambda: self._stored(batch), self.names)
        return {name: Metric(stored.tensors[name], tuple(stored.notes[name])) for name in self.names}

    def close(self) -> None:
        """Nothing: see `provider`."""

    def _stored(self, batch: SoundSamples) -> Stored:
        """Metrics as a file holds them."""
        measured = self.provider.measure(batch)
        reasons = {name: list(measured[name].reasons) for name in self.names}
        lost = {reason for column in reasons.values() for reason in column} & PASSING
        return Stored({name: measured[name].values.clone() for name in self.names}, reasons, not lost)
