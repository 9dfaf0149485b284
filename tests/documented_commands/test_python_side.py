"""Python that the documents show: the README's block is the example, and every page's blocks run."""

import re
import subprocess
import sys
from pathlib import Path

import mp_20_files
import pytest

from atomrl.chemistry.crystals import CellBounds
from atomrl.chemistry.hull import Hull

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "python_side.py"
REWARD = ROOT / "examples" / "custom_reward.py"
PAGES = sorted((ROOT / "docs").glob("*.md"))

# Fewer and smaller, nothing else: the demo's T = 50 and 8 x 16 samples would take minutes.
SMALL = [
    "dataloader.epoches=2",
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=2",
    "model.time_step=10",
    "train.train_steps=2",
    "threads=1",
]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_readme_shows_the_example() -> None:
    assert python_blocks(ROOT / "README.md") == [EXAMPLE.read_text()]
    assert len(EXAMPLE.read_text().splitlines()) < 20


def test_page_shows_the_example_of_a_reward() -> None:
    shown, *_ = python_blocks(ROOT / "docs" / "write-a-crystal-reward.md")
    imports, classes, rest = shown.partition("class ")
    assert classes + rest in REWARD.read_text()
    assert set(imports.split("\n")) <= set(REWARD.read_text().split("\n"))


def test_limits_of_a_cell_are_those_of_the_code() -> None:
    """The table in docs/units.md, row by row."""
    section = (
        (ROOT / "docs" / "units.md").read_text().partition("## Limits that a cell must keep")[2].partition("\n## ")[0]
    )
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, flags=re.MULTILINE))
    numbers = {name: [float(text) for text in re.findall(r"[\d.]+", text)] for name, text in rows.items()}
    bounds = CellBounds()
    assert numbers["length"] == [bounds.min_length, bounds.max_length]
    assert numbers["angle"] == [bounds.min_angle, bounds.max_angle]
    assert numbers["volume"] == [bounds.min_volume, bounds.max_volume]
    assert numbers["overlap"] == [bounds.min_distance, bounds.min_covalent_ratio]
    assert numbers["isolated"] == [bounds.max_gap]
    assert "10⁶" in rows["exploded"]
    assert bounds.max_coordinate == 1e6


def test_example_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *SMALL], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("  (") for line in done.stdout.splitlines()) == 20, done.stdout
    [run] = (tmp_path / "outputs" / "python_side").iterdir()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.stem)
def test_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "data/mp_20" in page.read_text():
        mp_20_files.write_csv(tmp_path, monkeypatch)
    names: dict[str, object] = {"__name__": page.stem}
    for number, block in enumerate(python_blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    if page.stem == "crystals":
        hull = Hull.load(tmp_path / "data" / "mp_20" / "hull.json")
        assert len(hull.entries) == 3 * len(mp_20_files.CRYSTALS)
        assert hull.key.data_version == "mp_20"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
