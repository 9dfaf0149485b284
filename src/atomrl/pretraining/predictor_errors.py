"""How far a property predictor is off on crystals that it did not learn from: in numbers, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from atomrl.data.crystal_batches import augmented
from atomrl.data.packed_crystals import PackedCrystals
from atomrl.networks.predictor import CrystalPredictor
from atomrl.util.figures import svg

Array = NDArray[np.float64]

CHUNK = 256
"""Crystals that the predictor sees at once."""
MANY = 5000
"""Points of a figure that are drawn as a picture, so that the file stays small."""


@dataclass(frozen=True)
class Common:
    """A value that more than half of the training crystals have exactly, e.g. the band gap 0 of a metal.

    Attributes:
        value: it.
        above: median of the larger ones, the best constant for these; NaN if there is none.
    """

    value: float
    above: float

    @classmethod
    def of(cls, values: Array) -> Common | None:
        """Of values, NaN where unknown; None if no value is that common."""
        known = values[np.isfinite(values)]
        if not len(known):
            return None
        found, counts = np.unique(known, return_counts=True)
        value, above = float(found[counts.argmax()]), known[known > found[counts.argmax()]]
        return cls(value, float(np.median(above)) if len(above) else np.nan) if counts.max() > len(known) / 2 else None


@dataclass(frozen=True)
class Predictions:
    """Of one property.

    Attributes:
        name: of the property.
        values: what it is, (C,).
        predicted: what the predictor says, (C,).
        mean, std: of the training crystals.
        common: of the training crystals.
    """

    name: str
    values: Array
    predicted: Array
    mean: float
    std: float
    common: Common | None = None

    def summary(self) -> dict[str, float]:
        """What the card says.

        `mae`: mean absolute error; `mae_of_the_mean`: that of predicting the training mean; `spearman`: rank
        correlation, if there is one; `structures`: that have the property; `mean` and `std` of the training set. Where
        a value is common also `common`, it; `structures_above`: with a larger one; `auc`: area under the ROC curve,
        whether the property is larger; `mae_above`: error on these; `mae_above_of_constant`: that of their training
        median.
        """
        found = {
            "mae": _mae(self.predicted, self.values),
            "mae_of_the_mean": _mae(self.mean, self.values),
            "structures": len(self.values),
            "mean": self.mean,
            "std": self.std,
        }
        if len(np.unique(self.values)) > 1 and len(np.unique(self.predicted)) > 1:
            found["spearman"] = float(spearmanr(self.values, self.predicted).statistic)
        return found if self.common is None else found | self._above(self.common)

    def _above(self, common: Common) -> dict[str, float]:
        """How well larger values than the common one are told from it, and predicted."""
        above = self.values > common.value
        found = {"common": common.value, "structures_above": int(above.sum())}
        if not above.any():
            return found
        found["mae_above"] = _mae(self.predicted[above], self.values[above])
        found["mae_above_of_constant"] = _mae(common.above, self.values[above])
        return found | ({} if above.all() else {"auc": area_under_roc(above, self.predicted)})

    def lines(self, split: str) -> list[str]:
        """For people."""
        found = self.summary()
        said = (
            f"{self.name}: mean absolute error {found['mae']:.4g} on {found['structures']:,} {split} crystals, "
            f"that of predicting the training mean {found['mae_of_the_mean']:.4g}"
        )
        lines = [said + (f", rank correlation {found['spearman']:.3f}" if "spearman" in found else "")]
        if "mae_above" in found:
            lines.append(
                f"{self.name}: most are exactly {found['common']:g}; on the {found['structures_above']:,} above it the "
                f"error is {found['mae_above']:.4g}, that of their training median {found['mae_above_of_constant']:.4g}"
                + (f"; area under the ROC curve {found['auc']:.3f}" if "auc" in found else "")
            )
        return lines


def predictions(
    predictor: CrystalPredictor,
    crystals: PackedCrystals,
    seed: int,
    common: Mapping[str, Common | None] | None = None,
) -> list[Predictions]:
    """Ask a predictor about crystals whose properties are known.

    Args:
        predictor: of these properties.
        crystals: with their values; each is turned and shifted at random, once.
        seed: of that.
        common: by property, of the training crystals.

    Returns:
        Of each property that some of these crystals have.
    """
    device = predictor.head.mean.device
    parts = []
    for step, start in enumerate(range(0, len(crystals), CHUNK)):
        rows = np.arange(start, min(start + CHUNK, len(crystals)))
        with torch.no_grad():
            parts.append(predictor(augmented(crystals.select(rows), seed, step).to(device).crystals).cpu().numpy())
    predicted = np.concatenate(parts).astype(np.float64)
    means, stds = predictor.head.mean.tolist(), predictor.head.std.tolist()
    found = []
    for place, name in enumerate(predictor.targets):
        known = np.isfinite(crystals.properties[name])
        if known.any():
            values, answers = crystals.properties[name][known], predicted[known, place]
            of_it = None if common is None else common.get(name)
            found.append(Predictions(name, values, answers, means[place], stds[place], of_it))
    return found


def area_under_roc(positive: NDArray[np.bool_], scores: Array) -> float:
    """Chance that a positive one of (C,) has a larger score than another one; ties count half."""
    ranks, count = rankdata(scores)[positive], int(positive.sum())
    return float((ranks.sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def draw_parity(found: Sequence[Predictions], split: str, path: Path) -> None:
    """Predicted against true values as SVG, a panel for each property.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    with svg(path, 4 * len(found), 4) as figure:
        for axes, one in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
            ends = [float(end(np.concatenate([one.values, one.predicted]))) for end in (np.min, np.max)]
            axes.plot(ends, ends, color="grey", linewidth=0.8)
            axes.scatter(one.values, one.predicted, s=4, alpha=0.5, rasterized=len(one.values) > MANY)
            axes.set(xlabel=f"{one.name} of {len(one.values):,} {split} crystals", ylabel="predicted", aspect="equal")


def _mae(predicted: Array | float, values: Array) -> float:
    return float(np.abs(predicted - values).mean())
