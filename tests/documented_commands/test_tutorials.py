"""The notebooks of docs/tutorials run as they stand, with smaller counts, and every command in them succeeds."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
COUNTS = {
    "molecules": "MOLECULES, GROUPS, ITERATIONS = 8, 1, 1",
    "crystals": "CRYSTALS, GROUPS, ITERATIONS = 8, 1, 1",
}
"""In place of the cell that is tagged `parameters`."""
LARGEST = 250_000
"""Bytes of a notebook with its outputs."""


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)


def with_checks(notebook: nbformat.NotebookNode, counts: str) -> nbformat.NotebookNode:
    """Smaller, with the commands of the text run too, and a cell after each command that fails if the command did."""
    cells = []
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = counts
        cells.append(cell)
        for command in re.findall(r"^    (atomrl .*)$", cell.source, re.M) if cell.cell_type == "markdown" else []:
            cells.append(nbformat.v4.new_code_cell("!" + command.replace("epoches=20", "epoches=2")))
            cells.append(nbformat.v4.new_code_cell("assert _exit_code == 0"))
        if cell.cell_type == "code" and any(line.startswith("!") for line in cell.source.splitlines()):
            assert sum(line.startswith("!") for line in cell.source.splitlines()) == 1, "one command in each cell"
            cells.append(nbformat.v4.new_code_cell("assert _exit_code == 0"))
    notebook.cells = cells
    return notebook


def test_every_notebook_has_smaller_counts() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.ipynb")} == COUNTS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_a_notebook_is_small_and_was_run(name: str) -> None:
    """From top to bottom, without an error."""
    assert (TUTORIALS / f"{name}.ipynb").stat().st_size <= LARGEST
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert [cell.metadata.get("tags") for cell in cells].count(["parameters"]) == 1


@pytest.fixture
def one_core() -> Iterator[None]:
    """Each command of a notebook starts workers: one of each kind, where the system can keep a process to a core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("name", COUNTS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    nbformat.write(with_checks(read(name), COUNTS[name]), tmp_path / "notebook.ipynb")
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": commands, "IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter")}
    words = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done", "notebook.ipynb"]
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "outputs" / "tutorial" / "metrics.jsonl").read_text().splitlines()) == 2  # resumed
    assert (tmp_path / "outputs" / "tutorial_table" / "evaluation.md").is_file()
