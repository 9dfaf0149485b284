"""What a conditional model is asked for: values of properties, given, or drawn to fit the size of each prompt.

Source of the distribution: Hoogeboom et al. 2022 (EDM), whose samples are asked for values of a histogram over the
training molecules of their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atomrl.core.random import key, keyed_uniforms
from atomrl.util.errors import UserError

BINS = 1000
"""Of a histogram."""

OUTSIDE, MAY_BE = "outside of what the model was trained on", "samples may be anything, and far outside not even finite"
"""What is said of a value that no training structure had."""


@dataclass(frozen=True)
class Property:
    """A property, and how it is distributed among the training structures of each size (K sizes).

    Attributes:
        unit: of its values, for messages.
        mean: over the training set.
        mad: mean absolute deviation from that; the model sees (value - mean) / mad.
        sizes: atoms, ascending, (K,) int64.
        low, high: ends of the histogram of each size, (K,) float64.
        counts: structures in each bin, (K, bins) float64.
    """

    unit: str
    mean: float
    mad: float
    sizes: Tensor
    low: Tensor
    high: Tensor
    counts: Tensor

    @classmethod
    def of(cls, sizes: NDArray[np.int64], values: NDArray[np.float64], unit: str, bins: int = BINS) -> Property:
        """The property of a training set.

        Args:
            sizes: atoms of each structure, (M,).
            values: of the property, in its unit, (M,).
            unit: its name.
            bins: of each histogram.

        Raises:
            UserError: all values are the same.
        """
        mean = float(values.mean())
        mad = float(np.abs(values - mean).mean())
        if not mad > 0:
            raise UserError(f"all training structures have the same value, {mean:g} {unit}: nothing to condition on")
        known, rows = np.unique(sizes, return_inverse=True)
        low, high = np.full(len(known), np.inf), np.full(len(known), -np.inf)
        np.minimum.at(low, rows, values)
        np.maximum.at(high, rows, values)
        places = ((values - low[rows]) / (high - low + 1e-12)[rows] * bins).astype(np.int64).clip(0, bins - 1)
        counts = np.zeros((len(known), bins))
        np.add.at(counts, (rows, places), 1.0)
        arrays = (known.astype(np.int64), low, high, counts)
        return cls(unit, mean, mad, *map(torch.from_numpy, arrays))

    def draw(self, sizes: Tensor, uniforms: Tensor) -> Tensor:
        """Values for structures of these sizes (B,), out of two uniform numbers each, (B, 2); (B,) float64."""
        rows = self._rows(sizes)
        below = self.counts[rows].cumsum(1)
        bins = torch.searchsorted(below, uniforms[:, :1] * below[:, -1:], right=True).squeeze(1)
        width = (self.high - self.low)[rows] / self.counts.shape[1]
        return self.low[rows] + (bins.clamp(max=self.counts.shape[1] - 1) + uniforms[:, 1]) * width

    def mean_of(self, sizes: Tensor) -> Tensor:
        """Mean value among the training structures of these sizes (B,), (B,) float64; NaN for a size without any."""
        bins = self.counts.shape[1]
        places = (torch.arange(bins) + 0.5) / bins
        share = (self.counts * places).sum(1) / self.counts.sum(1)
        means = self.low + share * (self.high - self.low)
        found = sizes[:, None] == self.sizes
        return torch.where(found.any(1), means[found.int().argmax(1)], torch.nan)

    def _rows(self, sizes: Tensor) -> Tensor:
        """Row of each size, (B,)."""
        return torch.searchsorted(self.sizes, sizes)


class Conditioning(Protocol):
    """What the prompts of a conditional model ask for."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of what the model is conditioned on."""

    @property
    def quantities(self) -> tuple[str, ...]:
        """Of these, what is asked for by a number in a unit, which a sample can come near to."""

    def asking(self, values: Mapping[str, str | float]) -> Self:
        """The same with these values for all prompts; what is not given is drawn.

        Raises:
            UserError: a name that the model is not conditioned on, or a value that cannot be.
        """

    def require(self, sizes: Sequence[int]) -> None:
        """Raise UserError if nothing says what to ask for where a structure has one of these numbers of atoms.

        Raises:
            UserError: as said.
        """

    def context(self, sizes: Tensor, group_ids: Tensor, seed: int, iteration: int) -> Tensor:
        """Context of groups of these sizes (G,) and global numbers (G,), (G, C) on the CPU."""

    def values(self, context: Tensor) -> dict[str, Tensor]:
        """What a context (B, C) asks for, by name, on the CPU: a number of each sample, (B,)."""

    def unseen(self) -> list[str]:
        """Of what is asked for the values that lie outside of what the model was trained on, a line each."""


def number(name: str, value: object) -> float:
    """A value that is asked for, as a number.

    Raises:
        UserError: it is none, or not finite.
    """
    try:
        found = float(str(value))
    except ValueError:
        found = inf
    if not isfinite(found):
        raise UserError(f"{name}={value}: must be a finite number, e.g. {name}=1.5")
    return found


def require_known(names: Sequence[str], asked: Mapping[str, object]) -> None:
    """Raise UserError for names that are asked for and not among those that a model is conditioned on.

    Raises:
        UserError: as said.
    """
    if unknown := [name for name in asked if name not in names]:
        raise UserError(
            f"the model is conditioned on {', '.join(names)}, not on {', '.join(unknown)}; ask for what it is "
            "conditioned on, or take a model that is conditioned on what you ask for"
        )


def described(conditioning: Conditioning | None) -> str:
    """What a model is, for messages: `conditioned on alpha, mu`, or `unconditional`."""
    return "unconditional" if conditioning is None else f"conditioned on {', '.join(conditioning.names)}"


@dataclass(frozen=True)
class PropertyConditioning:
    """Values of properties, of which each size has a distribution of its own; a `Conditioning`.

    Attributes:
        names: of the properties, in the order of the context's columns.
        known: {name: its distribution}, of those that the model came with.
        asked: {name: value, in the property's unit}, the same for all prompts; the others are drawn.
    """

    names: tuple[str, ...]
    known: Mapping[str, Property] = field(default_factory=dict)
    asked: Mapping[str, float] = field(default_factory=dict)

    @property
    def quantities(self) -> tuple[str, ...]:
        """All of them."""
        return self.names

    def asking(self, values: Mapping[str, str | float]) -> PropertyConditioning:
        """The same with these values for all prompts.

        Raises:
            UserError: a name that the model is not conditioned on, or a value that is no finite number.
        """
        require_known(self.names, values)
        return replace(self, asked={**self.asked, **{name: number(name, value) for name, value in values.items()}})

    def require(self, sizes: Sequence[int]) -> None:
        """Raise UserError if there is a property without a value for structures of one of these sizes.

        Raises:
            UserError: as said.
        """
        if lacking := [name for name in self.names if name not in self.known]:
            raise UserError(
                f"the model is conditioned on {', '.join(lacking)}, and nothing with it says how values are "
                "distributed: so no value can be drawn, and none that is given can be scaled"
            )
        for name in self.names:
            missing = set(sizes) - set(self.known[name].sizes.tolist())
            if name not in self.asked and missing:
                raise UserError(
                    f"the distribution of {name} has no structure of {', '.join(map(str, sorted(missing)))} atoms to "
                    "draw a value from: give one, or take other sizes"
                )

    def unseen(self) -> list[str]:
        """See `Conditioning`; outside of the range of all sizes together."""
        ranges = {name: (float(known.low.min()), float(known.high.max())) for name, known in self.known.items()}
        return [
            f"{name}={value:g}: {OUTSIDE}, {low:g} to {high:g} {self.known[name].unit}: {MAY_BE}"
            for name, value in self.asked.items()
            for low, high in [ranges.get(name, (-inf, inf))]
            if not low <= value <= high
        ]

    def context(self, sizes: Tensor, group_ids: Tensor, seed: int, iteration: int) -> Tensor:
        """Context of groups of these sizes (G,) and global numbers (G,): (G, C) float32, in the model's units."""
        columns = {}
        for name in self.names:
            if name in self.asked:
                columns[name] = torch.full((len(sizes),), float(self.asked[name]), dtype=torch.float64)
            else:
                uniforms = keyed_uniforms(group_ids, 2, key(seed, iteration, "context", name))
                columns[name] = self.known[name].draw(sizes, uniforms)
        return self.scaled(columns)

    def scaled(self, values: Mapping[str, Tensor]) -> Tensor:
        """Context (B, C) float32 of values in the properties' units, {name: (B,)}."""
        columns = [(values[name] - self.known[name].mean) / self.known[name].mad for name in self.names]
        return torch.stack(columns, dim=1).float()

    def values(self, context: Tensor) -> dict[str, Tensor]:
        """What a context (B, C) asks for, {name: (B,) float64 on the CPU}, in the properties' units."""
        columns: Sequence[Tensor] = context.detach().cpu().double().unbind(1)
        pairs = zip(self.names, columns, strict=True)
        return {name: column * self.known[name].mad + self.known[name].mean for name, column in pairs}
