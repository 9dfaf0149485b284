"""Records with a row per sample: every field says which axes it has, and one code slices, joins, moves and gathers all.

    @dataclass(frozen=True)
    class Measured(Batch):
        seed: Annotated[int, SHARED]
        sizes: Annotated[Tensor, ROWS]
        forces: Annotated[Mapping[str, Tensor], ATOMS]

A field may be a tensor, a tuple with an entry per sample, another `Batch`, a mapping of any of these, or None. A field
that declares no axis is an error at the first use of the record, so that nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from itertools import chain
from typing import Any, Protocol, Self, get_type_hints

import torch
from torch import Tensor


class Axis(Enum):
    """What the values of a field belong to."""

    ROWS = "a row per sample"
    ATOMS = "a row per sample, then an axis of padded atoms"
    SHARED = "the same for all samples"
    ADDED = "numbers of the whole, which add up"


ROWS, ATOMS, SHARED, ADDED = Axis.ROWS, Axis.ATOMS, Axis.SHARED, Axis.ADDED


class Gathers(Protocol):
    """What `Batch.gather` needs of a collective."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all ranks."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenation of (B, ...) tensors of all ranks."""


class Batch:
    """Base of a frozen dataclass whose fields declare their axes by `Annotated`."""

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """The samples at these rows: a slice, or (n,) int64 or (B,) bool."""
        return self._with(lambda axis, value: _take(value, rows) if axis in (ROWS, ATOMS) else value)

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        """The same record with all its tensors on a device."""
        return self._with(lambda _, value: _move(value, device, non_blocking))

    def pad(self, atoms: int) -> Self:
        """The same record with its axes of atoms padded with zeros up to `atoms`."""
        return self._with(lambda axis, value: _pad(value, atoms, axis))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """One batch out of several, padded to the largest.

        Raises:
            ValueError: a field that is there in one part and not in another, or a shared value that differs. Numbers
                of the whole that a part lacks are 0 there.
        """
        first = parts[0]
        return first._with(
            lambda _, __: None,
            {name: _join(name, axis, [getattr(part, name) for part in parts]) for name, axis in axes(cls).items()},
        )

    def gather(self, collective: Gathers) -> Self:
        """The samples of all ranks, in the order of ranks; every rank has the same fields.

        Masks and numbers travel as tensors, texts as bytes, so that any backend of torch.distributed will do.
        """
        device = next(_all_tensors(self)).device
        return self._with(lambda axis, value: _gather(axis, value, collective, device))

    def _with(self, change: Any, values: Mapping[str, Any] | None = None) -> Self:
        """The record with each field changed, or with other values."""
        assert is_dataclass(self)
        if values is None:
            values = {name: change(axis, getattr(self, name)) for name, axis in axes(type(self)).items()}
        return replace(self, **values)


def axes(kind: type[Batch]) -> Mapping[str, Axis]:
    """The axis of each field of a record.

    Raises:
        TypeError: a field declares none.
    """
    if kind not in _AXES:
        _AXES[kind] = _declared(kind)
    return _AXES[kind]


_AXES: dict[type[Batch], Mapping[str, Axis]] = {}
"""What `axes` has looked up."""


def _declared(kind: type[Batch]) -> dict[str, Axis]:
    """Read a record's annotations."""
    hints = get_type_hints(kind, include_extras=True)
    declared = {}
    for entry in fields(kind):  # type: ignore[arg-type]  # a Batch is a dataclass
        marks = getattr(hints[entry.name], "__metadata__", ())  # a hint that is not `Annotated` has none
        found = [mark for mark in marks if isinstance(mark, Axis)]
        if len(found) != 1:
            raise TypeError(
                f"{kind.__name__}.{entry.name} declares no axis: annotate it with ROWS, ATOMS, SHARED or ADDED"
            )
        declared[entry.name] = found[0]
    return declared


def pad_atoms(tensor: Tensor, atoms: int) -> Tensor:
    """Pad the second axis of (B, N, ...) with zeros up to `atoms`."""
    missing = atoms - tensor.shape[1]
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])], dim=1)


def tensors_of(record: Batch) -> dict[str, Tensor]:
    """A record's own tensors by name, without those in mappings."""
    values = {name: getattr(record, name) for name in axes(type(record))}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _all_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a field's value, or in a record, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Batch):
        for name in axes(type(value)):
            yield from _all_tensors(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _all_tensors(inner)


def _take(value: Any, rows: slice | Tensor) -> Any:
    """The rows of a field's value."""
    if isinstance(value, Mapping):
        return {key: _take(inner, rows) for key, inner in value.items()}
    if isinstance(value, Tensor):
        return value[rows if isinstance(rows, slice) else rows.to(value.device)]
    if isinstance(value, tuple):
        if isinstance(rows, slice):
            return value[rows]
        places = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
        return tuple(value[place] for place in places.tolist())
    return value[rows] if isinstance(value, Batch) else value


def _move(value: Any, device: torch.device, non_blocking: bool) -> Any:
    """A field's value on a device."""
    if isinstance(value, Mapping):
        return {key: _move(inner, device, non_blocking) for key, inner in value.items()}
    return value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor | Batch) else value


def _pad(value: Any, atoms: int, axis: Axis) -> Any:
    """A field's value with its axes of atoms padded."""
    if isinstance(value, Mapping):
        return {key: _pad(inner, atoms, axis) for key, inner in value.items()}
    if isinstance(value, Batch):
        return value.pad(atoms)
    return pad_atoms(value, atoms) if axis is ATOMS and isinstance(value, Tensor) else value


def _join(name: str, axis: Axis, values: list[Any]) -> Any:
    """One value of a field out of those of several parts."""
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise ValueError(f"{name}: a part has {type(first).__name__}, another not: parts must have the same fields")
    if isinstance(first, Mapping):
        names = dict.fromkeys(chain.from_iterable(values))
        if axis is ADDED:
            values = [dict.fromkeys(names, 0.0) | value for value in values]
        elif any(value.keys() != names.keys() for value in values):
            raise ValueError(
                f"{name}: parts have different entries: {' and '.join(map(str, (list(v) for v in values)))}"
            )
        return {key: _join(f"{name}[{key!r}]", axis, [value[key] for value in values]) for key in names}
    if isinstance(first, Batch):
        return type(first).concatenate(values)
    if axis is ADDED:
        return sum(values)
    if axis is not SHARED and isinstance(first, Tensor):
        widest = max(value.shape[1] for value in values) if axis is ATOMS else 0
        return torch.cat([pad_atoms(value, widest) for value in values] if axis is ATOMS else values)
    if axis is not SHARED and isinstance(first, tuple):
        return tuple(entry for value in values for entry in value)
    if any(value != first for value in values):
        raise ValueError(f"{name}: parts have different values, {first!r} and others")
    return first


def _gather(axis: Axis, value: Any, collective: Gathers, device: torch.device) -> Any:
    """A field's value with the rows of all ranks."""
    if isinstance(value, Mapping):
        return {key: _gather(axis, value[key], collective, device) for key in sorted(value, key=str)}
    if isinstance(value, Batch):
        return value.gather(collective)
    if axis is ADDED:
        return float(collective.sum(torch.tensor(value, dtype=torch.float64, device=device)))
    if axis is not SHARED and isinstance(value, tuple):
        return _gather_texts(value, collective, device)
    if axis is SHARED or not isinstance(value, Tensor):
        return value  # None, or a number that stands for all rows
    wide = pad_atoms(value, _widest(value.shape[1], collective, value.device)) if axis is ATOMS else value
    return collective.gather(wide.to(torch.uint8)).bool() if value.dtype == torch.bool else collective.gather(wide)


def _gather_texts(texts: tuple[str | None, ...], collective: Gathers, device: torch.device) -> tuple[str | None, ...]:
    """Texts of all ranks, as rows of bytes of which the first says whether there is a text."""
    rows = [b"\0" if text is None else b"\1" + text.encode() for text in texts]
    longest = _widest(max(map(len, rows), default=1), collective, device)
    table = torch.tensor([list(row.ljust(longest, b"\0")) for row in rows], dtype=torch.uint8, device=device)
    everyone = collective.gather(table.reshape(len(rows), longest)).cpu().numpy()
    return tuple(bytes(row[1:]).rstrip(b"\0").decode() if row[0] else None for row in everyone)


def _widest(width: int, collective: Gathers, device: torch.device) -> int:
    """The largest of a number over all ranks."""
    return int(collective.gather(torch.tensor([width], device=device)).max())
