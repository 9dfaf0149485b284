"""Crystals out of pymatgen's JSON, read piece by piece and without running what a file names."""

import gzip
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_sets import CRYSTALS, write_csv, write_entries
from pymatgen.core import Structure

from atomrl.data import crystal_entries
from atomrl.data.crystal_csv import load_crystal_csv
from atomrl.data.crystal_entries import load_crystal_entries
from atomrl.structures.entries import parse_entry
from atomrl.util.errors import UserError
from atomrl.workers.failure import Failure


@pytest.mark.parametrize("piece", [50, 1 << 20])
def test_entries_are_the_crystals_of_the_same_cifs(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crystal_entries, "PIECE", piece)
    found = load_crystal_entries(write_entries(tmp_path / "entries.json"), tmp_path, workers=1)
    cifs = load_crystal_csv(write_csv(tmp_path / "all.csv"), tmp_path, workers=1)
    assert found.ids == cifs.ids == tuple(CRYSTALS)
    assert found.failures == ()
    for row, given in enumerate(CRYSTALS.values()):
        ours, theirs = found.crystal(row), cifs.crystal(row)
        assert sorted(ours.numbers) == sorted(theirs.numbers)
        np.testing.assert_allclose(abs(np.linalg.det(ours.lattice)), abs(np.linalg.det(theirs.lattice)), rtol=1e-4)
        assert len(ours.numbers) == len(given.get_primitive_structure()) or len(ours.numbers) == len(given)


def test_compressed_and_bare_structures_and_rows_that_hold_none(tmp_path: Path) -> None:
    salt = CRYSTALS["dense-salt"].as_dict()
    half = Structure(CRYSTALS["na"].lattice, [{"Na": 0.5}, "Na"], CRYSTALS["na"].frac_coords).as_dict()
    flat = {**salt, "lattice": {"matrix": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}}
    strange = json.loads(json.dumps(salt).replace('"Cl"', '"Qq"'))
    near = {**salt, "sites": [salt["sites"][0], {**salt["sites"][1], "abc": [0.001, 0, 0]}]}
    slab = {**salt, "lattice": {**salt["lattice"], "pbc": [True, True, False]}}
    unknown = json.loads(json.dumps(salt).replace('"occu": 1', '"occu": NaN'))
    thin = {**salt, "lattice": {"matrix": [[9, 0, 0], [0, 9, 0], [9, 9, 1e-6]]}}
    records = [salt, {"entry_id": 7, "structure": half}, {"a": 1}, flat, strange, near, slab, unknown, thin]
    with gzip.open(tmp_path / "all.json.gz", "wt", encoding="utf-8-sig") as file:
        json.dump(records, file)
    found = load_crystal_entries(tmp_path / "all.json.gz", tmp_path, workers=1)
    assert found.ids == ("entry-1",)
    assert [(failure.row, failure.material_id, failure.reason.partition(":")[0]) for failure in found.failures] == [
        (2, "7", "disordered"),
        (3, "entry-3", "entry"),
        (4, "entry-4", "entry"),
        (5, "entry-5", "element"),
        (6, "entry-6", "unsound"),
        (7, "entry-7", "entry"),
        (8, "entry-8", "disordered"),
        (9, "entry-9", "niggli"),
    ]


def test_a_compressed_file_that_is_damaged(tmp_path: Path) -> None:
    damaged = bytearray(gzip.compress(json.dumps([CRYSTALS["na"].as_dict()] * 50).encode()))
    damaged[40:60:10] = b"\xff\xff"
    (tmp_path / "all.json.gz").write_bytes(damaged)
    with pytest.raises(UserError, match=r"all\.json\.gz is not a list of pymatgen's entries in JSON \(Error -3 while"):
        load_crystal_entries(tmp_path / "all.json.gz", tmp_path, workers=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it does not begin with"),
        ('{"a": 1}', "it does not begin with"),
        ("[1, 2]", "'1, 2]' is no object"),
        ('[{"a": 1}, {"b"', "an entry does not end"),
        ('[{"a": 1}', "an entry does not end"),
        ("[]", "it has no rows"),
    ],
)
def test_what_is_no_list_of_entries(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_crystal_entries(tmp_path / "bad.json", tmp_path, workers=1)
    assert "\n" not in str(caught.value)


def test_no_class_that_a_file_names_is_made(tmp_path: Path) -> None:
    """pymatgen's reader would import the module and call the class."""
    record = CRYSTALS["dense-salt"].as_dict()
    (tmp_path / "evil.py").write_text("raise RuntimeError('it ran')")
    record["sites"][0]["properties"] = {"x": {"@module": "evil", "@class": "Evil"}}
    record["@module"] = "evil"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(parse_entry(json.dumps({"structure": record})).crystal.numbers) == [11, 17]


@pytest.mark.parametrize("text", ["", "[]", '{"structure": {"lattice": {"matrix": [1, 2]}, "sites": []}}'])
def test_texts_without_a_structure(text: str) -> None:
    with pytest.raises(Failure, match="entry: no structure as pymatgen writes it"):
        parse_entry(text)
