"""Aggregation of hand-made evaluations."""

import json
import math

import pytest
from hand_made import MOLECULE_METRICS, column, evaluation, write

from atomrl.evaluation.definition import Definition
from atomrl.evaluation.table import value_cell as cell
from atomrl.measures.bootstrap import Estimate
from atomrl.util.errors import UserError
from studies.cells import apart, over_seeds, row_label
from studies.subjects import MOLECULES
from studies.tables import ELEMENTS, SeedResult

BASE = {"molecule_stability": (0.1, 0.08, 0.12), "rms_force_median": (3.0, 2.8, 3.2)}


@pytest.fixture
def study(tmp_path):
    """Three seeds and one control."""
    seeds = {}
    for seed, (stable, force) in enumerate(((0.2, 2.0), (0.3, 2.1), (0.1, 4.0))):
        trained = {
            "molecule_stability": (stable, stable - 0.02, stable + 0.02),
            "rms_force_median": (force, force - 0.2, force + 0.2),
            "novelty": (0.3, 0.25, 0.35),
        }
        seeds[seed] = write(tmp_path, f"seed-{seed}", evaluation({"base": BASE, "trained": trained}))
    best = {"molecule_stability": (0.25, 0.24, 0.29), "rms_force_median": ("inf", 2.0, "inf")}
    control = evaluation({"base": BASE, "base best of 4": best, "trained": trained})
    return seeds, [(4, write(tmp_path, "control", control))]


def rows(markdown):
    return {cells[0]: cells[1:] for line in markdown.splitlines() if (cells := line.strip("| ").split(" | "))}


def test_main_table(study):
    found = rows(SeedResult.read(*study).main_table())
    head = found["metric"]
    stable = dict(zip(head, found["molecule stability ↑, %"], strict=True))
    assert stable["rewarded"] == "yes"
    assert stable["base"] == "10.0 [8.0, 12.0]"
    reach = 4.303 * 0.1 / math.sqrt(3)
    assert stable["trained, mean of 3 seeds"] == f"20.0 [0.0, {100 * (0.2 + reach):.1f}]"
    assert stable["seeds apart from base"] == "better: 2 of 3"
    assert stable["best of 4"] == "25.0 [24.0, 29.0]"
    assert stable["seeds apart from best of 4"] == "worse: 2 of 3"
    force = dict(zip(head, found["RMS force, median ↓, eV/Å"], strict=True))
    assert force["seeds apart from base"] == "better: 2 of 3, worse: 1 of 3"
    assert force["best of 4"] == "inf [2.000, inf]"
    assert dict(zip(head, found["novelty, %"], strict=True))["seeds apart from base"] == "lower: 3 of 3"


def test_a_row_that_not_every_evaluation_has(tmp_path):
    """As that of atoms without an entry in the bond table, which stands where some sample has such elements."""
    more = MOLECULE_METRICS | {"no_bond_entry": ("no entry", "%", "samples", "neither")}
    values = {"base": {}, "trained": {}}
    paths = {
        seed: write(tmp_path, f"seed-{seed}", evaluation(values, metrics=metrics))
        for seed, metrics in enumerate((MOLECULE_METRICS, more))
    }
    result = SeedResult.read(paths, [])
    assert rows(result.seed_table())["no entry, %"] == [
        "- / 0 samples",
        "- / 0 samples",
        "50.0 [40.0, 60.0] / 100 samples",
    ]
    assert rows(result.main_table())["no entry, %"] == ["", "-", "-", "-"]


def test_seed_and_cost_tables(study):
    result = SeedResult.read(*study)
    assert rows(result.seed_table())["molecule stability ↑, %"] == [
        *("10.0 [8.0, 12.0] / 100 samples", "20.0 [18.0, 22.0] / 100 samples", "30.0 [28.0, 32.0] / 100 samples"),
        *("10.0 [8.0, 12.0] / 100 samples", "25.0 [24.0, 29.0] / 100 samples"),
    ]
    cost = rows(result.cost_table(MOLECULES))
    assert cost["novelty, %"][:2] == ["50.0 [40.0, 60.0]", "30.0 [25.0, 35.0]"]
    assert set(cost["atoms per molecule, mean"]) == {"15.00"}
    assert cost["share of H atoms, %"][0] == "60.00"
    assert cost["rdkit: valence, molecules"][0] == "3"
    assert result.base_shift == 0


def test_units_and_arrows_of_rows():
    for unit, better, said in (("", "higher", "m ↑"), ("eV/Å", "neither", "m, eV/Å"), ("%", "lower", "m ↓, %")):
        assert row_label(Definition("m", unit, "samples", better)) == said


def test_of_many_elements_those_that_moved_have_rows(tmp_path):
    """15 elements, equally frequent at first; training doubles Na and takes away Zr."""
    symbols = ["Al", "B", "C", "Ca", "Cl", "Cu", "F", "Fe", "H", "K", "Li", "Mg", "N", "Na", "Zr"]
    before = dict.fromkeys(symbols, 10)
    after = before | {"Na": 20, "Zr": 0}
    columns = {"base": column(elements=before), "trained": column(elements=after)}
    result = SeedResult.read({0: write(tmp_path, "one", evaluation({"base": BASE, "trained": BASE}, columns))}, ())
    assert result.moved_elements()[:2] == ("Na", "Zr")
    cost = rows(result.cost_table(MOLECULES))
    assert sum(name.startswith("share of ") and name.endswith("atoms, %") for name in cost) == ELEMENTS == 12
    assert cost["share of Na atoms, %"] == ["6.67", "13.33"]
    assert cost["share of the 3 other elements, %"] == ["20.00", "20.00"]
    # 13 elements of 1/15, one of 2/15: exp(log 15 - 2/15 log 2)
    assert cost["effective number of elements"] == ["15.0", f"{15 / 2 ** (2 / 15):.1f}"]


def test_missing_and_infinite_values_are_not_averaged_away():
    half = Estimate(0.5, 0.4, 0.6, 10)
    assert cell(over_seeds([half, Estimate.missing()], "%"), "%") == "-"
    assert cell(over_seeds([half, Estimate(math.inf, 1.0, math.inf, 10)], "eV"), "eV") == "-"
    tenth = Estimate(0.1, 0.0, 0.2, 10)
    assert cell(over_seeds([tenth] * 3, "%"), "%") == "10.0"  # no spread, no interval
    assert cell(over_seeds([half], "%"), "%") == "50.0"
    assert apart([Estimate.missing()], [half], "higher") == "-"  # nobody knows
    assert apart([Estimate.missing(), half], [half, half], "higher") == "none of 2"


def test_interval_over_three_seeds():
    mean = over_seeds([Estimate(value, 0.0, 1.0, 10) for value in (0.4, 0.5, 0.6)], "%")
    reach = 4.303 * 0.1 / math.sqrt(3)  # published quantile of Student's t, two degrees of freedom
    assert (mean.low, mean.high, mean.denominator) == pytest.approx((0.5 - reach, 0.5 + reach, 3), abs=1e-4)


def test_what_does_not_belong_together_is_refused(study, tmp_path):
    seeds, controls = study
    table = json.loads(seeds[1].read_text())
    for change, message in (
        ({"profile": "other"}, "differ in profile"),
        ({"conditions": {}}, "differ in conditions"),
        ({"columns": {"base": column(50), "trained": column(50)}}, "differ in samples of the base"),
        ({"columns": {"base": column(seeds=[8]), "trained": column()}}, "differ in seeds of the base"),
    ):
        other = write(tmp_path, "other", table | change)
        with pytest.raises(UserError, match=message):
            SeedResult.read({**seeds, 1: other}, controls)
    with pytest.raises(UserError, match="run the queue"):
        SeedResult.read({0: tmp_path / "none.json"}, ())
    structures = evaluation({"mine": {}, "trained": {}})
    for text, message in (
        ("{", "not the table of an"),
        ("{}", "not the table of an"),
        (json.dumps(structures), "no column base"),
    ):
        (tmp_path / "cut.json").write_text(text)
        with pytest.raises(UserError, match=message):
            SeedResult.read({0: tmp_path / "cut.json"}, ())


def test_another_base_is_noticed(study, tmp_path):
    seeds, _ = study
    moved = evaluation({"base": BASE | {"molecule_stability": (0.11, 0.08, 0.12)}, "trained": {}})
    result = SeedResult.read({0: seeds[0], 1: write(tmp_path, "moved", moved)}, ())
    assert result.base_shift == pytest.approx(0.01 / 0.11)
