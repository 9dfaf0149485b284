"""The field's CSV format: what is read, what is reported, what is cached."""

import csv
import dataclasses
import gzip
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON
from pymatgen.core import Lattice, Structure

from atomrl.data import crystal_csv
from atomrl.data.crystal_csv import load_crystal_csv
from atomrl.data.crystal_set import CrystalSet, FailedRow
from atomrl.structures.cells import canonical
from atomrl.structures.crystals import check_cells, from_crystals
from atomrl.util.errors import UserError
from atomrl.workers.executor import Outcome
from atomrl.workers.pool import WorkerPool

CASES = Path(__file__).parent / "cif_cases"
GOOD = [PEROVSKITE, ROCK_SALT, SILICON, CAESIUM_CHLORIDE]
BROKEN = {5: "", 9: "this is no CIF", 13: PEROVSKITE.to(fmt="cif")[:250]}
DISORDERED = Structure(Lattice.cubic(3.5), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])


def write(path, rows, header=("", "material_id", "cif", "band_gap", "formula", "cif.conv", "empty")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def row(number, text):
    gap = "" if number == 2 else str(number / 10)
    return [number - 1, f"id-{number}", text, gap, f"formula {number}", "ignored", ""]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """20 rows, of which four do not parse."""
    texts = {number: GOOD[number % 4].to(fmt="cif") for number in range(1, 21)}
    texts |= BROKEN | {17: DISORDERED.to(fmt="cif")}
    return write(tmp_path_factory.mktemp("csv") / "train.csv", [row(number, text) for number, text in texts.items()])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def crystals(source, cache):
    return load_crystal_csv(source, cache, workers=1)


def test_rows_that_parse(crystals):
    assert len(crystals) == 16
    assert crystals.ids == tuple(f"id-{n}" for n in range(1, 21) if n not in {5, 9, 13, 17})
    for place, identifier in enumerate(crystals.ids):
        expected = canonical(GOOD[int(identifier.removeprefix("id-")) % 4])
        crystal = crystals.crystal(place)
        assert len(crystal.numbers) == len(expected) == crystals.sizes[place]
        np.testing.assert_allclose(crystal.lattice, expected.lattice.matrix, atol=1e-4)
    batch = from_crystals([crystals.crystal(place) for place in range(len(crystals))])
    assert set(check_cells(batch)) == {None}


def test_columns(crystals):
    assert set(crystals.properties) == {"band_gap"}
    np.testing.assert_allclose(crystals.properties["band_gap"][:4], [0.1, np.nan, 0.3, 0.4])
    assert set(crystals.labels) == {"formula", "empty"}
    assert crystals.labels["formula"][0] == "formula 1"


def test_a_row_of_other_multiplicities_is_left_out_and_counted(tmp_path, caplog):
    text = SILICON.to(fmt="cif")
    site = next(line for line in text.splitlines() if line.split()[:2] == ["Si", "Si0"])
    other = text.replace(site, site.replace(" 1 ", " 8 ", 1)).replace("_cell_formula_units_Z", "_not_said")
    path = write(tmp_path / "two.csv", [row(1, text), row(2, other)])
    assert load_crystal_csv(path, tmp_path, workers=1).ids == ("id-1",)
    assert "multiplicity: 8 of Si0 is declared, 1 was read" in caplog.text


def test_rows_that_do_not_parse_are_named(crystals):
    assert [(failure.row, failure.material_id) for failure in crystals.failures] == [
        (5, "id-5"), (9, "id-9"), (13, "id-13"), (17, "id-17"),
    ]  # fmt: skip
    reasons = [failure.reason for failure in crystals.failures]
    assert reasons[0] == "no_cif"
    assert reasons[1].startswith("cif: ")
    assert reasons[2].startswith("cif: ")
    assert reasons[3].startswith("disordered: ")
    report = crystals.report()
    assert "16 of 20 rows read, 4 not" in report
    assert "row 9 (id-9)" in report
    assert "2 cif" in report


def test_second_call_reads_the_cache_and_reports_again(source, cache, crystals, monkeypatch, caplog):
    monkeypatch.setattr(crystal_csv, "_parse", None)
    with caplog.at_level(logging.WARNING):
        again = load_crystal_csv(source, cache)
    assert "4 not" in caplog.text
    assert again.failures == crystals.failures
    assert again.ids == crystals.ids
    np.testing.assert_array_equal(again.frac_coords, crystals.frac_coords)


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
def test_a_damaged_cache_is_named(ending, source, cache, crystals, tmp_path):
    copied = Path(shutil.copytree(cache, tmp_path / "cache"))
    (damaged,) = copied.glob(f"*{ending}")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cache/crystals-v.*\.safetensors cannot be read \(.*\): delete it, and it is"):
        load_crystal_csv(source, copied)


def test_cache_is_keyed_by_content(source, cache, crystals, tmp_path):
    copy = tmp_path / "other_name.csv"
    copy.write_bytes(source.read_bytes())
    load_crystal_csv(copy, cache)
    assert len(list(cache.glob("*.safetensors"))) == 1
    copy.write_bytes(source.read_bytes() + b"\n")
    assert crystal_csv._digest(copy) != crystal_csv._digest(source)


def test_blocks_do_not_matter(source, tmp_path, crystals, monkeypatch):
    monkeypatch.setattr(crystal_csv, "BLOCK", 3)
    cut = load_crystal_csv(source, tmp_path, workers=1)
    assert cut.ids == crystals.ids
    np.testing.assert_array_equal(cut.frac_coords, crystals.frac_coords)


def test_save_and_load(crystals, tmp_path):
    crystals.save(tmp_path / "set.safetensors")
    again = CrystalSet.load(tmp_path / "set.safetensors")
    for name in ("numbers", "frac_coords", "lattices", "offsets"):
        np.testing.assert_array_equal(getattr(again, name), getattr(crystals, name))
    assert again.labels == crystals.labels
    assert again.report() == crystals.report()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column"),
        ("material_id,structure\n1,2\n", "no column 'cif'"),
        ("id,cif\n1,2\n", "no column 'material_id'"),
        ("material_id,cif\n", "no row"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        ("\ufeffmaterial_id,cif\n", "no row"),
        ("material_id,cif\n1," + 17_000_000 * "x", "not CSV text in UTF-8 .field larger than field limit"),
        ("material_id,cif,name\n1,,é\n".encode("latin-1"), "not CSV text in UTF-8"),
        ("material_id,cif\n1,\n".encode("utf-16"), "not CSV text in UTF-8"),
        (gzip.compress(b"material_id,cif\n1,\n"), "not CSV text in UTF-8 .*: unpack it"),
        ("material_id,cif,gap\nmp-1,,1,5\n", "begins with 'mp-1' has 4 values, and there are 3 columns: put values"),
        ("material_id,cif,gap,gap\n1,,1,2\n", "has the column 'gap' 2 times: give each its own name"),
    ],
    ids=range(12),
)
def test_files_that_are_no_such_set(tmp_path, content, message):
    path = tmp_path / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        load_crystal_csv(path, tmp_path, workers=1)


def test_what_a_reader_should_know(tmp_path, caplog):
    """Cells that are not sound are left out; identifiers that come again and texts among numbers are named."""
    crowded = Structure(Lattice.cubic(3.0), ["Na", "Cl"], [[0, 0, 0], [0.05, 0, 0]])
    rows = [row(number, PEROVSKITE.to(fmt="cif")) for number in range(1, 8)]
    rows[2][2] = crowded.to(fmt="cif")
    rows[4][1] = "id-1"
    rows[4][3] = rows[5][3] = "0.4 eV"
    path = write(tmp_path / "train.csv", rows)
    path.write_text("\ufeff" + path.read_text())
    for _ in range(2):  # parsed, and from the cache
        caplog.clear()
        crystals = load_crystal_csv(path, tmp_path, workers=1)
        assert [(failure.row, failure.reason) for failure in crystals.failures] == [(3, "unsound: overlap")]
        assert "6 of 7 rows read, 1 not (1 unsound)" in caplog.text
        assert "1 rows have the material_id of an earlier one: row 5 ('id-1')" in caplog.text
        assert "the column 'band_gap' is not a property" in caplog.text
        assert "2 of its 5 values are not finite numbers: row 5 ('0.4 eV'), row 6 ('0.4 eV')" in caplog.text
        assert "formula" not in caplog.text
        assert set(crystals.properties) == set()
        assert set(crystals.refused) == {"band_gap", "formula", "empty"}
        assert crystals.refused["empty"] == "it is empty"


def test_rows_whose_atoms_are_not_the_declared_ones_are_named(tmp_path, caplog):
    """And so are those whose sites were taken for all atoms, since nothing was said of symmetry."""
    path = tmp_path / "train.csv"
    path.write_bytes((CASES / "silent_wrong_crystal.csv").read_bytes())
    crystals = load_crystal_csv(path, tmp_path, workers=1)
    assert crystals.ids == ("control_CsCl", "Hall_only", "Fd-3m_:2", "Fd-3m_origin_2", "P21/a")
    assert crystals.labels["expected_formula"] == ("Cs Cl", "Na4 Cl4", "Si8", "Si8", "Na4 Cl4")
    assert crystals.sizes.tolist() == [2, 8, 8, 8, 8]
    assert "5 of 10 rows read, 5 not (4 formula, 1 element)" in caplog.text
    for row in ("row 3 (type_NH4): formula: Cl1 H4 N1 is declared, Cl1 Nh1", "row 2 (type_OH): element: 'O1'"):
        assert row in caplog.text
    assert "1 rows do not declare a symmetry" in caplog.text
    assert "(P 1): row 1 ('control_CsCl')" in caplog.text


def test_properties_of_every_size_and_missing_ones(tmp_path, caplog):
    """Numbers beyond float32 stay what they are; missing is what pandas reads as missing."""
    values = {}
    for name in ("property_overflow", "property_missing_words"):
        path = tmp_path / f"{name}.csv"
        path.write_bytes((CASES / path.name).read_bytes())
        values[name] = load_crystal_csv(path, tmp_path, workers=1).properties["gap"].tolist()
    assert "no property" not in caplog.text
    assert values["property_overflow"] == [1.0, 1e39, 2.0, 3.0, 0.5, 1.5]
    np.testing.assert_array_equal(values["property_missing_words"], [1.0, np.nan, 2.0, np.nan, np.nan, 1.5])


def test_a_report_names_rows_of_every_kind(crystals):
    failures = (*(FailedRow(row, f"id-{row}", "formula: a") for row in range(7)), FailedRow(8, "id-8", "cif: b"))
    report = dataclasses.replace(crystals, failures=failures).report()
    assert "16 of 24 rows read, 8 not (7 formula, 1 cif)" in report
    assert "row 4 (id-4): formula: a; and 2 more; row 8 (id-8): cif: b" in report


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv"):
        load_crystal_csv(tmp_path / "absent.csv", tmp_path)


def test_a_row_over_which_a_worker_was_lost_is_tried_again(tmp_path, monkeypatch):
    """As on a busy machine, or one that is short of memory."""
    path = write(tmp_path / "train.csv", [row(number, GOOD[number % 4].to(fmt="cif")) for number in range(1, 5)])
    honest = WorkerPool.map

    def lossy(self, items):
        return [*honest(self, items)[:-1], Outcome(None, "worker_died")]

    with monkeypatch.context() as patched:
        patched.setattr(WorkerPool, "map", lossy)
        assert [failure.reason for failure in load_crystal_csv(path, tmp_path, workers=1).failures] == ["worker_died"]
    assert len(load_crystal_csv(path, tmp_path, workers=1)) == 4
