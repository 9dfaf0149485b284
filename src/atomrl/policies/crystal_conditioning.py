"""What a conditional crystal model is asked for: what is given, or what a known crystal of the same size has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from ase.data import chemical_symbols
from ase.formula import Formula
from numpy.typing import NDArray
from torch import Tensor

from atomrl.core.conditioning import MAY_BE, OUTSIDE, require_known
from atomrl.core.random import key, keyed_uniforms
from atomrl.networks.conditions import Condition, formula_counts, formula_unit
from atomrl.util.errors import UserError

FAR = 5.0
"""Standard deviations from the mean, beyond which hardly a training crystal lies."""

MOST = 10_000
"""Crystals whose conditions a model remembers at most: a card is read whole."""


@dataclass(frozen=True)
class KnownCrystals:
    """Conditions of K training crystals, one row each, so that what is drawn together belongs together.

    Attributes:
        sizes: atoms, ascending, (K,) int64.
        numbers: values and numbers of classes, {condition: (K,) float64}.
        formulas: of the crystals, K texts; none where no condition is about elements.
    """

    sizes: Tensor
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
    formulas: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        sizes: NDArray[np.int64],
        numbers: Mapping[str, NDArray[np.float64]],
        counts: Tensor | None,
        seed: int = 0,
    ) -> KnownCrystals:
        """Of M training crystals; `MOST` at most, some of each size.

        Args:
            sizes: atoms, (M,).
            numbers: values and numbers of classes by condition, (M,).
            counts: atoms by element, (M, ELEMENTS); None if no condition is about elements.
            seed: of the choice, where there are too many.
        """
        shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))
        first = np.zeros(len(shuffled), dtype=bool)
        first[np.unique(sizes[shuffled], return_index=True)[1]] = True
        chosen = shuffled[np.argsort(~first, kind="stable")][:MOST]
        chosen = chosen[np.lexsort((chosen, sizes[chosen]))]
        formulas = () if counts is None else tuple(map(_formula, counts[torch.from_numpy(chosen)]))
        columns = {name: torch.from_numpy(values[chosen]) for name, values in numbers.items()}
        return cls(torch.from_numpy(sizes[chosen]), columns, formulas)

    def within(self, elements: Tensor) -> KnownCrystals:
        """Those that consist of just these elements, (ELEMENTS,) bool."""
        kept = torch.tensor(
            [bool(torch.equal(formula_counts(formula) > 0, elements)) for formula in self.formulas], dtype=torch.bool
        )
        numbers = {name: values[kept] for name, values in self.numbers.items()}
        formulas = tuple(formula for formula, keep in zip(self.formulas, kept.tolist(), strict=True) if keep)
        return KnownCrystals(self.sizes[kept], numbers, formulas)

    def rows(self, sizes: Tensor, uniforms: Tensor) -> Tensor:
        """A crystal of each of these sizes (G,), all of a size alike likely, out of a uniform number each, (G,)."""
        start, stop = (torch.searchsorted(self.sizes, sizes, right=right) for right in (False, True))
        return start + (uniforms * (stop - start)).long().clamp(max=len(self.sizes) - 1)

    def columns(self, condition: Condition, rows: Tensor) -> Tensor:
        """What the crystals at these rows (G,) have of a condition, (G, columns) float64."""
        if not condition.of_elements:
            return self.numbers[condition.name][rows][:, None]
        return condition.of_counts(torch.stack([formula_counts(self.formulas[row]) for row in rows.tolist()]))


@dataclass(frozen=True)
class CrystalConditioning:
    """What the prompts of a conditional crystal model ask for; implements `core.conditioning.Conditioning`.

    What is not given comes from one training crystal of the prompt's size, for all conditions the same; where a
    composition is among that and a chemical system is asked for, from one of that system.

    Attributes:
        conditions: of the model, in the order of the context's columns.
        known: training crystals.
        asked: {condition: value}, the same for all prompts.
    """

    conditions: tuple[Condition, ...]
    known: KnownCrystals | None = None
    asked: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the conditions."""
        return tuple(condition.name for condition in self.conditions)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Of the conditions of the kind `value`: a class has a number, too, but no unit."""
        return tuple(condition.name for condition in self.conditions if condition.kind == "value")

    def asking(self, values: Mapping[str, str | float]) -> CrystalConditioning:
        """The same with these values for all prompts; a composition says the chemical system, too.

        Raises:
            UserError: a name that the model is not conditioned on, a value that cannot be, or a composition and a
                chemical system that contradict each other.
        """
        require_known(self.names, values)
        asked = {**self.asked, **values}
        elements = {
            condition.name: (condition.row(asked[condition.name]) > 0)
            for condition in self.conditions
            if condition.name in asked and condition.of_elements
        }
        for condition in self.conditions:
            if condition.name in asked and not condition.of_elements:
                condition.row(asked[condition.name])
        if not elements:
            return replace(self, asked=asked)
        first, *others = elements.values()
        if any(not torch.equal(first, other) for other in others):
            said = ", ".join(f"{name}={asked[name]}" for name in elements)
            raise UserError(f"{said}: these are not of the same elements; ask for one of them")
        left = [entry for entry in self.conditions if entry.of_elements and entry.name not in asked]
        symbols = "-".join(chemical_symbols[number] for number in first.nonzero()[:, 0].tolist())
        asked |= {entry.name: symbols for entry in left if entry.kind == "chemical_system"}
        drawn = self.known is not None and any(entry.kind == "composition" for entry in left)
        return replace(self, asked=asked, known=self.known.within(first) if drawn and self.known else self.known)

    def unseen(self) -> list[str]:
        """See `Conditioning`; of the training set mean and standard deviation are known, of which `FAR` are far."""
        values = [
            (condition, float(condition.row(self.asked[condition.name])))
            for condition in self.conditions
            if condition.kind == "value" and condition.name in self.asked
        ]
        return [
            f"{one.name}={value:g}: {OUTSIDE}, mean {one.mean:g} and standard deviation {one.std:g}: {MAY_BE}"
            for one, value in values
            if abs(value - one.mean) > FAR * one.std
        ]

    def require(self, sizes: Sequence[int]) -> None:
        """Raise UserError if there is a condition that is not given, and no crystal of one of these sizes to have it.

        Raises:
            UserError: as said; or none of these sizes can have the composition that is asked for.
        """
        self._require_room(sizes)
        drawn = [name for name in self.names if name not in self.asked]
        if not drawn:
            return
        if self.known is None:
            raise UserError(
                f"the model is conditioned on {', '.join(drawn)}, and nothing with it says what its training crystals "
                "have of that: give a value for each"
            )
        if missing := sorted(set(sizes) - set(self.known.sizes.tolist())):
            said = f" with {', '.join(f'{name}={value}' for name, value in self.asked.items())}" if self.asked else ""
            raise UserError(
                f"the model knows no training crystal of {', '.join(map(str, missing))} atoms{said} to take "
                f"{', '.join(drawn)} from: give a value, or take other sizes"
            )

    def _require_room(self, sizes: Sequence[int]) -> None:
        """Raise UserError for a composition of which no cell of these sizes holds whole formula units.

        As shares a composition is its reduced formula; one that is typed with more atoms than the model makes is not
        what a sample would be.
        """
        most = max([*sizes, *([] if self.known is None else self.known.sizes.tolist())])
        for condition in self.conditions:
            if condition.kind != "composition" or condition.name not in self.asked:
                continue
            formula = str(self.asked[condition.name])
            counts = formula_counts(formula)
            unit = int(formula_unit(counts).sum())
            if counts.sum() > most and counts.sum() > unit:
                raise UserError(
                    f"{condition.name}={formula}: {int(counts.sum())} atoms, and the model makes {most} at most; ask "
                    f"for the reduced formula if that is meant, {condition.name}={Formula(formula).reduce()[0]}"
                )
            if all(size % unit for size in sizes):
                raise UserError(
                    f"{condition.name}={formula}: {unit} atoms in a formula unit, and samples have "
                    f"{', '.join(map(str, sizes))} atoms, none of which is a multiple: ask for another or other sizes"
                )

    def context(self, sizes: Tensor, group_ids: Tensor, seed: int, iteration: int) -> Tensor:
        """Context of groups of these sizes (G,) and global numbers (G,), (G, C) float64."""
        rows = None
        if self.known is not None and len(self.known.sizes):
            rows = self.known.rows(sizes, keyed_uniforms(group_ids, 1, key(seed, iteration, "context"))[:, 0])
        columns = []
        for condition in self.conditions:
            if condition.name in self.asked:
                columns.append(condition.row(self.asked[condition.name]).expand(len(sizes), -1))
            else:
                assert self.known is not None
                assert rows is not None, "see `require`"
                columns.append(self.known.columns(condition, rows))
        return torch.cat(columns, dim=1)

    def values(self, context: Tensor) -> dict[str, Tensor]:
        """What a context (B, C) asks for: {condition: value or number of the class, (B,) float64 on the CPU}.

        What is about elements is no number, and is not among them.
        """
        parts = context.detach().cpu().double().split([condition.columns for condition in self.conditions], dim=1)
        pairs = zip(self.conditions, parts, strict=True)
        return {condition.name: columns[:, 0] for condition, columns in pairs if not condition.of_elements}


def _formula(counts: Tensor) -> str:
    """Formula of atoms by element, (ELEMENTS,), elements by atomic number."""
    numbers = counts.nonzero()[:, 0].tolist()
    return "".join(f"{chemical_symbols[number]}{int(counts[number])}" for number in numbers)
