"""Metrics that compare crystals with each other and with a reference set."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from atomrl.matching.amd import AMDDistances
from atomrl.matching.matcher import CrystalMatcher, Verdicts
from atomrl.measures.measure import Metric, SoundSamples
from atomrl.structures.crystals import to_crystals


class MatchingProvider:
    """`unique` and `novel`; implements `MetricProvider`.

    Args:
        matcher: knows the reference set; `close` closes it too.
    """

    names = ("unique", "novel")

    def __init__(self, matcher: CrystalMatcher) -> None:
        self.matcher = matcher

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """Both, 1 or 0."""
        unique, novel = self.matcher.match(to_crystals(batch.tensors))
        return {"unique": _metric(unique), "novel": _metric(novel)}

    def close(self) -> None:
        """Close the matcher."""
        self.matcher.close()


class AMDProvider:
    """`amd_distance`; implements `MetricProvider`.

    Args:
        distances: knows the reference set.
    """

    names = ("amd_distance",)

    def __init__(self, distances: AMDDistances) -> None:
        self.distances = distances

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """Å; infinite for a crystal that has none to be compared with."""
        values = torch.from_numpy(self.distances.nearest(to_crystals(batch.tensors)))
        return {"amd_distance": Metric(values, (None,) * len(batch))}

    def close(self) -> None:
        """Nothing to give back."""


def _metric(verdicts: Verdicts) -> Metric:
    """A verdict as a number."""
    return Metric(torch.from_numpy(verdicts.values).double(), verdicts.reasons)
