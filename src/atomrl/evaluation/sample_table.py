"""One Parquet table of an evaluation: a row per sample of each column, all verdicts, units in the schema.

pyarrow is imported when a table is written or read: it takes 0.3 s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atomrl.util.errors import UserError, first_line
from atomrl.util.files import whole

if TYPE_CHECKING:
    import pyarrow as pa

COLUMN, SAMPLE_ID = "column", "sample_id"
"""Which column of the tables a sample belongs to, and its id, as in the files of samples: together a key."""

METADATA = b"atomrl"
"""Key of the schema's metadata: profile, evaluator, conditions and command, as JSON."""


@dataclass(frozen=True)
class SampleColumn:
    """Something about each of B samples.

    Attributes:
        values: (B,) numbers or truth values, or B texts; a text that is None and a number that is not finite are null.
        about: what it is, in a few words.
        unit: of a number; empty for a text, a truth value or a plain number.
        known: whose number or truth value is known, (B,) bool, the others are null; None: of all.
    """

    values: NDArray[Any] | Sequence[str | None]
    about: str
    unit: str = ""
    known: NDArray[np.bool_] | None = None


SampleColumns = Mapping[str, SampleColumn]
"""By name, in the order of the table."""


def at_rows(columns: SampleColumns, rows: NDArray[np.int64], samples: int) -> SampleColumns:
    """Columns of the samples at these rows (n,) as columns of all of them: null elsewhere."""
    chosen = np.zeros(samples, dtype=np.bool_)
    chosen[rows] = True
    return {name: _at_rows(column, rows, chosen) for name, column in columns.items()}


def _at_rows(column: SampleColumn, rows: NDArray[np.int64], chosen: NDArray[np.bool_]) -> SampleColumn:
    """One of them."""
    values = column.values
    if not isinstance(values, np.ndarray):
        texts: list[str | None] = [None] * len(chosen)
        for row, text in zip(rows.tolist(), values, strict=True):
            texts[row] = text
        return replace(column, values=texts)
    spread, known = np.zeros(len(chosen), dtype=values.dtype), chosen.copy()
    spread[rows] = values
    if column.known is not None:
        known[rows] = column.known
    return replace(column, values=spread, known=known)


def write_sample_table(path: Path, samples: Mapping[str, SampleColumns], about: Mapping[str, Any]) -> None:
    """Write the table, whole or not at all.

    Args:
        path: of the file, which ends in `.parquet`.
        samples: {heading of a column of the evaluation: what is known of its samples, with `SAMPLE_ID`}. A name that
            only some headings have is null elsewhere.
        about: for the schema's metadata, as JSON has it.

    Raises:
        UserError: a column is not as long as its ids, a name means two things, or the file cannot be written.
    """
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s
    import pyarrow.parquet as pq  # noqa: PLC0415

    fields = {COLUMN: pa.field(COLUMN, pa.string(), metadata=_metadata("column of the evaluation's tables", ""))}
    parts = []
    for heading, columns in samples.items():
        lengths = {len(column.values) for column in columns.values()}
        if SAMPLE_ID not in columns or len(lengths) != 1:
            raise UserError(f"{heading}: the columns {', '.join(columns)} have {lengths} values: give one per sample")
        arrays = {COLUMN: pa.array([heading] * lengths.pop(), pa.string())}
        for name, column in columns.items():
            arrays[name] = _array(column)
            field = pa.field(name, arrays[name].type, metadata=_metadata(column.about, column.unit))
            if not fields.setdefault(name, field).equals(field, check_metadata=True):
                raise UserError(f"{heading}: its column {name} is not that of the others")
        parts.append(arrays)
    schema = pa.schema(list(fields.values()), metadata={METADATA: json.dumps(dict(about), ensure_ascii=False).encode()})
    tables = [_table(arrays, schema) for arrays in parts]
    with whole(path) as partial:
        pq.write_table(pa.concat_tables(tables), partial)


def read_sample_table(path: Path) -> dict[str, dict[str, SampleColumn]]:
    """What `write_sample_table` wrote: {heading: its columns}, without those of which nothing is known there.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}): copy it again") from error
    if {COLUMN, SAMPLE_ID} - set(table.column_names):
        raise UserError(f"{path} holds no samples of an evaluation ({COLUMN}, {SAMPLE_ID}): is it another table?")
    found: dict[str, dict[str, SampleColumn]] = {}
    for heading in dict.fromkeys(table.column(COLUMN).to_pylist()):
        rows = table.filter(pc.equal(table.column(COLUMN), heading))
        known = [field for field in rows.schema if rows.column(field.name).null_count < len(rows)]
        found[heading] = {
            field.name: _sample_column(path, field, rows.column(field.name)) for field in known if field.name != COLUMN
        }
    return found


def _sample_column(path: Path, field: pa.Field, column: pa.ChunkedArray) -> SampleColumn:
    """A field of the schema, and its values."""
    import pyarrow as pa  # noqa: PLC0415

    about = {name.decode(): text.decode() for name, text in (field.metadata or {}).items()}
    is_text = pa.types.is_string(field.type)
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    is_flag = pa.types.is_boolean(field.type)
    if not (is_text or is_number or is_flag):
        raise UserError(f"{path}: the column {field.name} is not text, a number or a truth value: is it another table?")
    known = column.is_valid().to_numpy() if is_flag and column.null_count else None
    if is_flag:
        column = column.fill_null(False)
    values = column.to_pylist() if is_text else column.to_numpy()
    return SampleColumn(values, about.get("description", ""), about.get("unit", ""), known)


def _table(arrays: Mapping[str, pa.Array], schema: pa.Schema) -> pa.Table:
    """Arrays of one heading with all columns of the schema."""
    import pyarrow as pa  # noqa: PLC0415

    rows = len(arrays[COLUMN])
    filled = [arrays[field.name] if field.name in arrays else pa.nulls(rows, field.type) for field in schema]
    return pa.Table.from_arrays(filled, schema=schema)


def _array(column: SampleColumn) -> pa.Array:
    """A column as Arrow has it."""
    import pyarrow as pa  # noqa: PLC0415

    values = column.values
    if not isinstance(values, np.ndarray):
        return pa.array(values, pa.string())
    known = np.ones(len(values), dtype=np.bool_) if column.known is None else column.known
    return pa.array(values, mask=~known | ~np.isfinite(values))


def _metadata(about: str, unit: str) -> dict[str, str]:
    """Of a field."""
    return {"description": about, **({"unit": unit} if unit else {})}
