"""Python that the documents show: the README's block is the example, and every page's blocks run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "python_side.py"
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
    names: dict[str, object] = {"__name__": page.stem}
    for number, block in enumerate(python_blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
