"""How many samples have a property that is wanted, by a predictor that judges them, and how it is distributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atomrl.checkpoints.predictor import load_predictor
from atomrl.core.records import Structures
from atomrl.evaluation.crystals import CrystalScorecard
from atomrl.evaluation.definition import Definition
from atomrl.measures.bootstrap import RESAMPLES, median, proportion
from atomrl.networks.predictor import CrystalPredictor
from atomrl.util.errors import UserError
from atomrl.util.figures import svg

BINS = 40


@dataclass(frozen=True)
class WantedJudge:
    """Predicts a property, and counts the unique and novel samples that have what is wanted of it.

    Attributes:
        folder: of the predictor.
        name: of the property.
        bound: where the wanted values begin.
        larger: whether the larger ones are wanted.
        label: of its rows and columns: the property's name, or that and a number where others judge it too.

    Raises:
        UserError: no predictor there, or it does not know the property.
    """

    folder: str
    name: str
    bound: float
    larger: bool
    label: str

    def __post_init__(self) -> None:
        if self.name not in self.predictor.targets:
            raise UserError(
                f"evaluation.wanted: the predictor in {self.folder} knows {', '.join(self.predictor.targets)}, and not "
                f"{self.name}: name one of these"
            )

    @cached_property
    def predictor(self) -> CrystalPredictor:
        """The network."""
        return load_predictor(self.folder)

    @property
    def limit(self) -> str:
        """What is wanted, for people."""
        return f"{'>=' if self.larger else '<='} {self.bound:g}"

    @property
    def figure(self) -> str:
        """Name of the file with its distribution; a property may be per something, `eV/atom`."""
        return f"evaluation_{self.label.replace('/', '_')}.svg"

    def predict(self, structures: Structures) -> NDArray[np.float64]:
        """Of B crystals, (B,); NaN for one that the predictor cannot read."""
        return self.predictor.predict(structures)[self.name].cpu().numpy().astype(np.float64)

    def has(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the predicted values are wanted, (B,); none that is unknown."""
        return values >= self.bound if self.larger else values <= self.bound

    def add_to(self, metrics: CrystalScorecard, seed: int = 0, resamples: int = RESAMPLES) -> CrystalScorecard:
        """The verdict with two more rows: the share that is unique, novel and wanted, and the median of the property.

        Args:
            metrics: so far; their samples hold what `predict` said, under the label.
            seed: of the bootstrap.
            resamples: of the bootstrap.
        """
        samples, label = metrics.samples, self.label
        values = samples.predicted[label]
        share, middle = wanted_metric(label), f"{label}_median"
        rows = {
            share: Definition(f"unique, novel, {label} {self.limit} (predicted)", "%", "samples", "higher"),
            middle: Definition(f"{label}, predicted, median", "", "predicted", "neither"),
        }
        hits = self.has(values) & samples.unique & samples.novel
        known = values[np.isfinite(values)]
        summary = {share: proportion(hits, seed, resamples), middle: median(known, seed, resamples)}
        return metrics.with_rows(rows, summary, {f"{label}_predicted_by": self.folder})


def wanted_metric(label: str) -> str:
    """What the share of wanted samples is called among metrics: `<label>_wanted`."""
    return f"{label}_wanted"


def draw_distributions(judge: WantedJudge, columns: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Histograms of the predicted property as SVG, a line for each column; dotted: where the wanted values begin.

    Args:
        judge: that predicted.
        columns: what it said, by the heading of the samples, (B,) each; NaN is left out.
        path: of the figure; none is drawn if nothing was predicted.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    finite = {label: values[np.isfinite(values)] for label, values in columns.items()}
    together = np.concatenate(list(finite.values()))
    if not len(together):
        return
    low, high = np.quantile(together, [0.005, 0.995])
    edges = np.histogram_bin_edges(together, BINS, range=(low, high))
    with svg(path, 6, 3.5) as figure:
        axes = figure.subplots()
        for label, values in finite.items():
            shares = np.histogram(values.clip(low, high), edges)[0] / max(1, len(values))
            axes.stairs(100 * shares, edges, label=f"{label} ({len(values):,})", gid=label.replace(" ", "-"))
        axes.axvline(judge.bound, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"predicted {judge.name}; wanted: {judge.limit}", ylabel="samples, %")
        axes.legend(frameon=False)
