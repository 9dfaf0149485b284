"""Conditions of the crystal denoiser, and classifier-free guidance.

A context is one row of numbers per sample, the columns of all conditions side by side: it travels in
`Prompts.context`. Parameters carry their published names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self, get_args

import torch
from ase.data import atomic_numbers
from ase.formula import Formula
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from atomrl.core.conditioning import number
from atomrl.util.errors import UserError
from atomrl.util.options import Number, Options, Whole, contradiction

ELEMENTS = 100
"""Columns of a composition or chemical system; column = Z."""

SHOWN = 8
"""Classes that a message names at most."""

MOST_ATOMS, LONGEST = 1_000_000, 300
"""Of a formula: atoms and characters; beyond them it is a slip of typing."""

Kind = Literal["value", "category", "composition", "chemical_system"]
KINDS: tuple[str, ...] = get_args(Kind)


class Condition(Options):
    """One property to condition on."""

    name: str
    """Name of the property, as in the data."""
    kind: str
    """Kind of the condition: `value`, `category`, `composition` or `chemical_system`."""
    mean: Number = 0.0
    """Mean of a value over the training set; a value is standardised by mean and std."""
    std: Number = 1.0
    """Standard deviation of a value over the training set."""
    categories: Whole = 0
    """Number of classes of a category."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers; none where they are asked for by number."""

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        """Raise UserError for a value that a condition cannot have; the name says of which."""
        if self.kind not in KINDS:
            raise contradiction(f"condition {self.name}: unknown kind {self.kind!r}; use one of {', '.join(KINDS)}")
        if self.kind == "category" and self.categories < 1:
            raise contradiction(f"condition {self.name}: a category needs its number of classes, `categories`")
        if self.classes and len(self.classes) != self.categories:
            raise contradiction(
                f"condition {self.name}: {len(self.classes)} names of {self.categories} classes, give one for each"
            )
        if not self.std > 0:
            raise contradiction(f"condition {self.name}: std={self.std} must be positive")
        return self

    @property
    def of_elements(self) -> bool:
        """Whether a crystal's elements alone say its columns."""
        return self.kind in {"composition", "chemical_system"}

    @property
    def columns(self) -> int:
        """Width in a context."""
        return ELEMENTS if self.of_elements else 1

    @property
    def inputs(self) -> int:
        """Width of what the embedding sees."""
        return self.categories if self.kind == "category" else self.columns

    def row(self, value: object) -> Tensor:
        """Context columns of one sample: a number, a class, a formula (`LiMnO2`) or a system (`Li-Mn-O`).

        Returns:
            (columns,) float64.

        Raises:
            UserError: the value is of another kind, or names an unknown element or class.
        """
        if self.of_elements:
            return self.of_counts(self._counts(str(value)))
        return torch.tensor([self._class(value) if self.kind == "category" else number(self.name, value)]).double()

    def _counts(self, text: str) -> Tensor:
        """Atoms by element of a formula or a chemical system."""
        try:
            return formula_counts(text) if self.kind == "composition" else element_counts(text.split("-"))
        except UserError as error:
            raise UserError(f"condition {self.name}: {error}") from error

    def of_counts(self, counts: Tensor) -> Tensor:
        """Context columns of atoms by element (..., ELEMENTS): their shares, or 1 where there are any; float64."""
        wide = counts.double()
        return wide / wide.sum(-1, keepdim=True) if self.kind == "composition" else (wide > 0).double()

    def _class(self, value: object) -> float:
        """Number of a class, out of its name, or of its number where classes have no names."""
        if self.classes:
            name = class_name(value) if isinstance(value, float) else str(value)
            if name not in self.classes:
                names = ", ".join(self.classes[:SHOWN]) + (", ..." if len(self.classes) > SHOWN else "")
                raise UserError(f"condition {self.name}: there is no class {name}, only {names}")
            return float(self.classes.index(name))
        found = number(self.name, value)
        if found not in range(self.categories):
            raise UserError(f"condition {self.name}: there is no class {value}, only 0..{self.categories - 1}")
        return found


def class_name(value: float) -> str:
    """Name of a class that is a number: 225.0, as a YAML's 225 is read, and 225 are the class `225`."""
    return f"{value:.15g}"


def formula_counts(formula: str) -> Tensor:
    """Atoms by element of a formula such as `LiMnO2`, (ELEMENTS,) int64; column = Z.

    Raises:
        UserError: it is no formula, has a charge or an amount of 0, names no element or what is no element with Z below
            `ELEMENTS`, or has more atoms than `MOST_ATOMS`.
    """
    if len(formula) > LONGEST:
        raise UserError(
            f"{formula[:SHOWN]!r}... of {len(formula)} characters is not a formula of a crystal, e.g. LiMnO2"
        )
    try:
        counts: dict[str, int] = Formula(formula).count()
    except ValueError as error:
        raise UserError(f"{formula!r} is not a formula of whole atoms, e.g. LiMnO2") from error
    if not counts:
        raise UserError(f"{formula!r} names no element: give a formula of whole atoms, e.g. LiMnO2")
    if sum(counts.values()) > MOST_ATOMS:
        raise UserError(f"{formula!r} has more than {MOST_ATOMS:,} atoms: give a formula of one cell, e.g. LiMnO2")
    if "+" in formula or not all(counts.values()):  # to ASE, Fe3+O4 is the sum of Fe3 and O4
        raise UserError(f"{formula!r} is not a formula of whole atoms without charges, e.g. LiMnO2")
    return element_counts(list(counts), list(counts.values()))


def formula_unit(counts: Tensor) -> Tensor:
    """The smallest whole numbers of atoms in the same ratios, (ELEMENTS,) int64, of atoms by element, one at least."""
    divisor = torch.tensor(0)
    for count in counts[counts > 0]:
        divisor = torch.gcd(divisor, count)
    return counts // divisor


def element_counts(symbols: Sequence[str], counts: Sequence[int] | None = None) -> Tensor:
    """Atoms by element, one of each if not said otherwise, (ELEMENTS,) int64; column = Z.

    Raises:
        UserError: a symbol is of no element with Z below `ELEMENTS`.
    """
    numbers = [atomic_numbers.get(symbol, 0) for symbol in symbols]
    for symbol, found in zip(symbols, numbers, strict=True):
        if not 0 < found < ELEMENTS:
            raise UserError(f"{symbol!r} is not an element with Z below {ELEMENTS}")
    row = torch.zeros(ELEMENTS, dtype=torch.int64)
    row[numbers] = torch.tensor([1] * len(numbers) if counts is None else list(counts))
    return row


def counts_by_element(atoms: Tensor) -> Tensor:
    """Atoms by element of crystals of these atomic numbers (B, N), 0 where padded; (B, ELEMENTS) int64."""
    counts = torch.zeros(len(atoms), ELEMENTS, dtype=torch.int64, device=atoms.device)
    counts.scatter_add_(1, atoms, torch.ones_like(atoms))
    counts[:, 0] = 0
    return counts


def context_of(conditions: Sequence[Condition], numbers: Tensor, properties: Mapping[str, Tensor]) -> Tensor:
    """What a model would be asked for to get these crystals.

    Args:
        conditions: of the model.
        numbers: atomic numbers, (B, N), 0 where padded.
        properties: values and numbers of classes of the crystals by condition, (B,) float64, NaN where unknown.

    Returns:
        (B, C) float64, NaN where unknown.
    """
    counts = counts_by_element(numbers)
    columns = [
        entry.of_counts(counts) if entry.of_elements else properties[entry.name][:, None] for entry in conditions
    ]
    return torch.cat(columns, dim=1)


class ConditionEncoder(nn.Module):
    """Context columns of one condition -> (B, H); a dropped sample's input is replaced by a learned null vector."""

    def __init__(self, condition: Condition, hidden: int) -> None:
        super().__init__()
        self.condition = condition
        self.embedding = nn.Sequential(nn.Linear(condition.inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.null_embed = nn.Parameter(torch.randn(1, condition.inputs))

    def forward(self, columns: Tensor, dropped: Tensor) -> Tensor:
        """Columns (B, columns), dropped (B,) bool."""
        condition, dtype = self.condition, self.null_embed.dtype
        if condition.kind == "value":  # in float64, which a value may need
            columns = (columns.double() - condition.mean) / condition.std
        elif condition.kind == "category":
            columns = functional.one_hot(columns[:, 0].long(), condition.categories)
        inputs = torch.where(dropped[:, None], self.null_embed, columns.to(dtype))
        out: Tensor = self.embedding(inputs)
        return out


class ConditionModule(nn.Module):
    """All conditions of a model: an encoder each, side by side into one shared projection.

    Attributes:
        conditions: in the order of the context's columns.
        drop_prob: chance that training drops a sample's conditions, all at once.
    """

    def __init__(self, conditions: Sequence[Condition], hidden: int, drop_prob: float = 0.1) -> None:
        super().__init__()
        names = [condition.name for condition in conditions]
        if not names or len(set(names)) < len(names):
            raise UserError(f"conditions need names that differ, got {names}")
        if bad := [name for name in names if not name or "." in name or hasattr(nn.ModuleDict(), name)]:
            raise UserError(f"conditions {bad}: torch refuses these as names of modules; call them otherwise")
        if not 0 <= drop_prob <= 1:
            raise UserError(f"drop_prob={drop_prob}: must lie between 0 and 1")
        self.conditions, self.drop_prob = tuple(conditions), drop_prob
        self.encoders = nn.ModuleDict({condition.name: ConditionEncoder(condition, hidden) for condition in conditions})
        self.proj = nn.Sequential(nn.Linear(len(names) * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    @property
    def columns(self) -> int:
        """Width of a context."""
        return sum(condition.columns for condition in self.conditions)

    def context(self, values: Mapping[str, Sequence[object]]) -> Tensor:
        """Context (B, columns) out of one sequence of B values per condition.

        Raises:
            UserError: a condition is missing or unknown, or a value does not fit its kind.
        """
        names = [condition.name for condition in self.conditions]
        if set(values) != set(names):
            raise UserError(f"this model is conditioned on {', '.join(names)}; got {', '.join(values) or 'nothing'}")
        if len({len(column) for column in values.values()}) > 1:
            raise UserError("each condition needs one value per sample")
        return torch.cat(
            [torch.stack([entry.row(value) for value in values[entry.name]]) for entry in self.conditions], dim=1
        )

    def forward(self, context: Tensor, dropped: Tensor) -> Tensor:
        """Embedding (B, H) of a context (B, columns); dropped (B,) bool marks samples without conditions.

        Raises:
            UserError: the context has another width.
        """
        if context.shape[1] != self.columns:
            raise UserError(f"the context has {context.shape[1]} columns, the model's conditions need {self.columns}")
        widths = [condition.columns for condition in self.conditions]
        embedded = [
            self.encoders[condition.name](columns, dropped)
            for condition, columns in zip(self.conditions, context.split(widths, dim=1), strict=True)
        ]
        out: Tensor = self.proj(torch.cat(embedded, dim=-1))
        return out

    def training_embedding(self, context: Tensor, uniforms: Tensor) -> Tensor:
        """Embedding (B, H) of a context (B, columns).

        Dropped are samples with a uniform draw (B,) below `drop_prob`, and those of which something is unknown, NaN.
        """
        dropped = (uniforms < self.drop_prob) | context.isnan().any(1)
        embedded: Tensor = self(context.nan_to_num(0.0), dropped)
        return embedded

    def guidance_embedding(self, context: Tensor) -> Tensor:
        """Embedding (2B, H) of `[cond; null]`."""
        dropped = torch.arange(2 * len(context), device=context.device) >= len(context)
        embedded: Tensor = self(torch.cat([context, context]), dropped)
        return embedded


def guide(output: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, uncond + scale (cond - uncond): on noise and variance alike.

    Args:
        output: the denoiser's for `[cond; null]`, (2B, N, 2D).
        scale: 1 is no guidance.

    Returns:
        (B, N, 2D).
    """
    conditional, unconditional = output.chunk(2)
    return unconditional + scale * (conditional - unconditional)
