"""The tables of docs/molecules.md against the code: every key with its default and the demo's value, every metric."""

import re
from pathlib import Path
from typing import Any

from atomrl.config import MoleculeConfig, load_config
from atomrl.evaluation.molecules import METRICS
from atomrl.pretraining.edm_run import PretrainRun
from atomrl.util.options import Options

PAGE = (Path(__file__).parents[2] / "docs" / "molecules.md").read_text()


def section(title: str) -> str:
    """A section's text, with its subsections."""
    level = title.partition(" ")[0]
    return PAGE.partition(f"\n{title}\n")[2].partition(f"\n{level} ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of a text's tables that begin with a name."""
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in re.findall(r"^\| `.*$", text, re.M)]


def leaves(options: Any, prefix: str = "") -> dict[str, str]:
    """All options by their dotted key, with their values as the page writes them."""
    found = {}
    for name, value in options:
        key = f"{prefix}{name}"
        found |= leaves(value, f"{key}.") if isinstance(value, Options) else {key: shown(value)}
    return found


def shown(value: Any) -> str:
    """A value in the one form that is compared."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(float(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(str(entry) for entry in value)}]"
    return str(value)


def as_shown(cell: str) -> str:
    """A cell in the same form."""
    text = cell.strip("`")
    return repr(float(text)) if re.fullmatch(r"-?[\d.]+(e-?\d+)?", text) else text


def test_every_key_of_a_training():
    """The demo's column holds what conf/demo.yaml changes, and nothing else."""
    table = rows(section("## Post-training"))
    table = [row for row in table if len(row) == 5]  # the others are of YAML files
    keys = [row[0].strip("`") for row in table]
    defaults, demo = leaves(MoleculeConfig()), leaves(load_config("demo"))
    assert len(keys) == len(set(keys))
    assert set(keys) == defaults.keys()
    assert {key: as_shown(row[1]) for key, row in zip(keys, table, strict=True)} == defaults
    changed = {key: as_shown(row[2]) for key, row in zip(keys, table, strict=True) if row[2]}
    assert changed == {key: value for key, value in demo.items() if value != defaults[key]}
    assert all(row[4] for row in table)


def test_every_option_of_pretrain_edm():
    table = {row[0].strip("`"): as_shown(row[1]) for row in rows(section("## Pre-training"))}
    assert table == leaves(PretrainRun())


def test_every_metric_of_the_profile():
    table = rows(section("### What the metrics mean"))
    listed = {name: row[1] for row in table for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == {name: definition.counted for name, definition in METRICS.items()}
