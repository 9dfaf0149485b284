"""How often a run has drawn a formula: a metric with a memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from atomrl.measures.measure import Metric, SoundSamples

DRAWN_BEFORE = "drawn_before"


class DrawnBefore:
    """Counts reduced formulas over a run; implements `MetricProvider` and `Remembers`.

    | name | values |
    |---|---|
    | `drawn_before` | samples of the same reduced formula in what it was told to remember, (B,) |
    """

    names = (DRAWN_BEFORE,)

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """The counts; measuring adds nothing to them."""
        counts = [float(self._counts[formula]) for formula in _formulas(batch)]
        return {DRAWN_BEFORE: Metric(torch.tensor(counts, dtype=torch.float64), (None,) * len(batch))}

    def remember(self, batch: SoundSamples) -> None:
        """Count these samples too."""
        self._counts.update(_formulas(batch))

    def memory(self) -> dict[str, int]:
        """{reduced formula: samples}."""
        return dict(self._counts)

    def recall(self, memory: Mapping[str, int]) -> None:
        """Go on from what `memory` gave."""
        self._counts = Counter(memory)

    def close(self) -> None:
        """Nothing to give back."""


def _formulas(batch: SoundSamples) -> list[str]:
    """The reduced formula of each sample."""
    return [crystal.composition.reduced_formula for crystal in batch.crystals]
