"""A killed `atomrl sample` or `atomrl evaluate` goes on to the files of an uninterrupted one."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
import small_backbone
from ase import Atoms
from stopped import stop_when

from atomrl.cli import main


@pytest.mark.parametrize("name", ["crystals.cif", "molecules.extxyz"])
def test_a_killed_command_goes_on(name: str, tmp_path: Path) -> None:
    backbone = "crystal_small" if "crystals" in name else str(small_backbone.write(tmp_path / "backbone"))
    count = "200" if "crystals" in name else "700"
    words = ["sample", "--backbone", backbone, "-n", count, "--time-step", "3", "--seed", "5", "--output"]
    cut, straight = tmp_path / "cut" / name, tmp_path / "straight" / name
    notes = cut.with_name(f"{name}.unfinished.json")
    stop_when(lambda: notes.exists() and json.loads(notes.read_text())["parts"] >= 2, [*words, str(cut)])
    assert not cut.exists()
    with cut.with_name(f"{name}.unfinished").open("ab") as file:
        file.write(b"half a batch, of which nobody knows")
    main([*words, str(cut)])
    main([*words, str(straight)])
    assert cut.read_bytes() == straight.read_bytes()
    assert [path.name for path in cut.parent.iterdir()] == [name]
    if name.endswith("extxyz"):
        read = ase.io.read(cut, index=":")
        assert [atoms.info["sample_id"] for atoms in read] == [f"{row:05d}" for row in range(700)]


def test_a_killed_evaluation_goes_on(tmp_path: Path) -> None:
    """What it was told already is not asked again, and the tables are those of an uninterrupted one."""
    rng = np.random.default_rng(0)
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    ase.io.write(tmp_path / "water.extxyz", [Atoms("OH2", water + rng.normal(0, 0.05, (3, 3))) for _ in range(700)])
    words = ["evaluate", "--structures", str(tmp_path / "water.extxyz"), "reward.workers=1"]
    cut, straight, kept = tmp_path / "cut", tmp_path / "straight", tmp_path / "kept"
    asked = [*words, "--keep", str(kept), "--output", str(cut)]
    stop_when(lambda: bool(list(kept.glob("*/*.safetensors"))), asked)
    assert not (cut / "evaluation.md").exists()
    first = {path: path.stat().st_mtime_ns for path in kept.glob("*/*.safetensors")}
    assert 1 <= len(first) < 3
    main(asked)
    main([*words, "--output", str(straight)])
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(kept.glob("*/*.safetensors"))) == 3
    tables = [pq.read_table(place / "evaluation.parquet") for place in (cut, straight)]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == 700
    assert (cut / "water.sdf").read_bytes() == (straight / "water.sdf").read_bytes()
