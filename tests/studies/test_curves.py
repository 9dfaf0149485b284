"""Curves from small logs."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from atomrl.util.errors import UserError
from studies.curves import draw, running_mean, series
from studies.subjects import CRYSTALS, MOLECULES

PANELS = MOLECULES.panels


def log(path, rows):
    path.write_text("".join(json.dumps({"iteration": k, **row}) + "\n" for k, row in enumerate(rows)))
    return path


def ids(path):
    return {element.get("id") for element in ET.parse(path).getroot().iter() if element.get("id")}


@pytest.fixture
def logs(tmp_path):
    return {
        seed: log(tmp_path / f"{seed}.jsonl", [{"reward": seed + k, "rms_force": None, "kl_loss": k} for k in range(5)])
        for seed in (0, 3)
    }


def test_a_line_per_seed_and_a_mean(logs, tmp_path):
    draw(logs, tmp_path / "curves.svg", PANELS)
    lines = {name for name in ids(tmp_path / "curves.svg") if name.startswith(tuple(panel.key for panel in PANELS))}
    assert lines == {f"{key}-{line}" for key in ("reward", "kl_loss") for line in ("seed-0", "seed-3", "mean")}
    text = (tmp_path / "curves.svg").read_text()
    assert "seed 3" in text
    assert "RMS force" not in text  # never measured


def test_as_many_panels_as_there_are_measurements(tmp_path):
    keys = [panel.key for panel in CRYSTALS.panels]
    one = log(tmp_path / "log.jsonl", [dict.fromkeys(keys, k) for k in range(3)])
    draw({0: one}, tmp_path / "curves.svg", CRYSTALS.panels)
    assert {f"{key}-mean" for key in keys} <= ids(tmp_path / "curves.svg")
    assert len(keys) == 8  # more than two rows of three hold, beside the legend


def test_same_logs_same_bytes(logs, tmp_path):
    for name in ("one.svg", "two.svg"):
        draw(logs, tmp_path / name, PANELS)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_running_mean_leaves_out_what_is_missing():
    values = np.array([[0.0, 3.0, np.nan, 9.0], [2.0, 5.0, 8.0, np.nan]])
    np.testing.assert_allclose(running_mean(values, window=3), [10 / 4, 18 / 5, 25 / 4, 17 / 2])
    np.testing.assert_array_equal(running_mean(np.full((1, 2), np.nan), window=3), [np.nan, np.nan])


def test_shares_become_percent_and_gaps_stay():
    rows = [[{"iteration": 0, "molecule_stability": 0.5}, {"iteration": 2, "molecule_stability": None}]]
    panel = next(panel for panel in PANELS if panel.key == "molecule_stability")
    np.testing.assert_array_equal(series(rows, panel), [[50.0, np.nan, np.nan]])


def test_logs_that_cannot_be_drawn(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        draw({0: tmp_path / "none.jsonl"}, tmp_path / "curves.svg", PANELS)
    with pytest.raises(UserError, match="no iteration"):
        draw({0: log(tmp_path / "empty.jsonl", [])}, tmp_path / "curves.svg", PANELS)
    with pytest.raises(UserError, match="is logged"):
        draw({0: log(tmp_path / "other.jsonl", [{"lr": 1}])}, tmp_path / "curves.svg", PANELS)
    assert not (tmp_path / "curves.svg").exists()
