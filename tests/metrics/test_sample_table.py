"""The table of samples: a row each, units in the schema, null for what is unknown."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from atomrl.evaluation.sample_table import METADATA, SampleColumn, at_rows, write_sample_table
from atomrl.util.errors import UserError


def test_rows_units_and_unknown_values(tmp_path: Path) -> None:
    base = {
        "sample_id": SampleColumn(["00000", "00001"], "id"),
        "energy": SampleColumn(np.array([1.5, np.inf]), "energy", "eV"),
        "novel": SampleColumn(np.array([True, False]), "novel"),
        "reason": SampleColumn([None, "scf"], "why"),
    }
    trained = {name: SampleColumn(column.values[:1], column.about, column.unit) for name, column in base.items()}
    trained["atoms"] = SampleColumn(np.array([5]), "number of atoms")
    path = tmp_path / "table.parquet"
    write_sample_table(path, {"base": base, "trained": trained}, {"profile": "p", "evaluator": "Å"})
    table = pq.read_table(path)
    assert table.to_pylist() == [
        {"column": "base", "sample_id": "00000", "energy": 1.5, "novel": True, "reason": None, "atoms": None},
        {"column": "base", "sample_id": "00001", "energy": None, "novel": False, "reason": "scf", "atoms": None},
        {"column": "trained", "sample_id": "00000", "energy": 1.5, "novel": True, "reason": None, "atoms": 5},
    ]
    assert table.schema.field("energy").metadata == {b"description": b"energy", b"unit": b"eV"}
    assert json.loads(table.schema.metadata[METADATA]) == {"profile": "p", "evaluator": "Å"}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"atoms": SampleColumn(np.array([1]), "atoms")}, "give one per sample"),
        ({"sample_id": SampleColumn(["a"], "id"), "x": SampleColumn(np.zeros(2), "x")}, "give one per sample"),
    ],
)
def test_columns_without_ids_or_of_other_lengths_are_refused(columns, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        write_sample_table(tmp_path / "table.parquet", {"base": columns}, {})
    assert not list(tmp_path.iterdir())


def test_a_name_with_two_units_is_refused(tmp_path: Path) -> None:
    ids = SampleColumn(["a"], "id")
    columns = {unit: {"sample_id": ids, "energy": SampleColumn(np.zeros(1), "energy", unit)} for unit in ("eV", "J")}
    with pytest.raises(UserError, match="J: its column energy is not that of the others"):
        write_sample_table(tmp_path / "table.parquet", columns, {})


def test_pyarrow_is_imported_by_who_writes_a_table() -> None:
    code = "import sys, atomrl.commands.samples, atomrl.domains.crystal_panel; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_columns_of_some_samples_are_null_elsewhere(tmp_path: Path) -> None:
    few = {
        "stable": SampleColumn(np.array([True, False]), "stable"),
        "bonds": SampleColumn(np.array([3, 4]), "bonds", known=np.array([True, False])),
        "energy": SampleColumn(np.array([np.inf, 2.5]), "energy", "eV"),
        "reason": SampleColumn(["scf", None], "why"),
    }
    columns = {"sample_id": SampleColumn(["a", "b", "c"], "id"), **at_rows(few, np.array([2, 0]), 3)}
    write_sample_table(tmp_path / "table.parquet", {"base": columns}, {})
    table = pq.read_table(tmp_path / "table.parquet").drop_columns(["column"])
    assert table.to_pylist() == [
        {"sample_id": "a", "stable": False, "bonds": None, "energy": 2.5, "reason": None},
        {"sample_id": "b", "stable": None, "bonds": None, "energy": None, "reason": None},
        {"sample_id": "c", "stable": True, "bonds": 3, "energy": None, "reason": "scf"},
    ]
    assert table.schema.field("energy").metadata == {b"description": b"energy", b"unit": b"eV"}
