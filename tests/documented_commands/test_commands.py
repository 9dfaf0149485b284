"""Every command that README.md and the pages of docs/ show exists and runs: smaller counts, nothing else changed.

Commands of one page run in its order and in one folder, since later ones build on earlier ones.
"""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from atomrl.cli import main
from atomrl.data.qm9 import MoleculeSet
from atomrl.training import pretrain_run
from results.__main__ import main as results_main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMOKE = (
    "python run_elign.py --config-name fed_grpo_config reward.type=dummy wandb.enabled=false dataloader.epoches=2 "
    "dataloader.sample_group_size=2 dataloader.each_prompt_sample=4 model.time_step=50"
)

# What is appended to a command: smaller counts only.
TRAIN = [
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=2",
    "model.time_step=20",  # shorter walks make molecules that no force field can score, and then there is no best
    "train.train_steps=2",
    "evaluation.samples=4",
]
SAMPLE = ["--num-molecules", "4", "--time-step", "5"]
STUDY = ["--seeds", "0", "--docs", "report", *TRAIN[:-1], "threads=1", "dataloader.epoches=1"]
PRETRAIN = ["train.steps=2", "train.batch_size=4", "val_batches=1"]


def commands(page: Path) -> list[str]:
    """The shell commands of a page, one per line of its bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def smaller(words: list[str]) -> list[str]:
    """Arguments of `atomrl` for a short run."""
    command, *rest = words
    if command == "train":
        return [*words, *TRAIN, f"dataloader.epoches={2 if 'resume=true' in rest else 1}"]
    if command in {"sample", "evaluate"}:
        return [*words, *SAMPLE]
    if command == "pretrain":
        return [*words, *PRETRAIN]
    raise AssertionError(f"no short form of atomrl {command}: add one here")


def smaller_study(words: list[str]) -> list[str]:
    """Arguments of `python -m results` for a short run."""
    own = [TRAIN[-1]] if "demo" in words else ["--samples", "4", "--time-step", "5", "--best-of", "2"]
    return [*words, *STUDY, *own]


def check_make(words: list[str]) -> None:
    """Targets and variables that a `make` command names are in the Makefile."""
    text = (ROOT / "Makefile").read_text()
    variables = {word.partition("=")[0] for word in words if "=" in word}
    assert variables <= set(re.findall(r"^([A-Z]+) \?=", text, flags=re.MULTILINE)), words
    targets = {word for word in words if "=" not in word}
    assert targets <= set(re.findall(r"^([a-z]+):", text, flags=re.MULTILINE)), words


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one documented command in this process."""
    program, *words = shlex.split(command)
    if program == "make":
        check_make(words)
    elif program == "python" and words[:2] == ["-m", "results"]:
        results_main(smaller_study(words[2:]))
    elif program == "atomrl":
        monkeypatch.setattr(sys, "argv", [program, *smaller(words)])
        main()
    elif program == "python" and words[0] == "run_elign.py":
        _, *arguments = smaller(["train", *words[1:]])
        monkeypatch.setattr(sys, "argv", [words[0], *arguments])
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    else:
        raise AssertionError(f"nothing here knows how to test {command!r}")


@pytest.fixture
def few_molecules(qm9_set: MoleculeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """QM9 is 300 molecules."""
    monkeypatch.setattr(pretrain_run, "load_qm9", lambda: qm9_set)
    monkeypatch.setattr(pretrain_run, "split", lambda molecules: dict.fromkeys(("train", "validation"), molecules))


@pytest.mark.usefixtures("few_molecules")
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        run(command, monkeypatch)
    if page.stem == "README":
        check_run_directory(page.read_text(), tmp_path / "outputs" / "my_run")


def check_run_directory(readme: str, folder: Path) -> None:
    """The README's table of a run directory against a run that was stopped and continued."""
    section = readme.partition("## What a run leaves behind")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`([\w./]+)`", "".join(re.findall(r"^\|([^|]*)\|", section, flags=re.MULTILINE))))
    listed = {name.rstrip("/") for name in listed} - {"csv", "nonfinite_loss.pt"}  # an option; only after a failure
    assert listed == {path.name for path in folder.iterdir()}
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("command", ["python -m results", "python -m results demo --jobs 2"])
def test_short_studies_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No page shows a study in a block so far; their short forms must be ready. tests/results runs one in earnest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("results.__main__.Queue.run", lambda queue: None)
    with pytest.raises(SystemExit):
        run(command, monkeypatch)
    assert "evaluation.json: No such file" in capsys.readouterr().err  # understood; there is only nothing to report


def test_smoke_command_is_documented() -> None:
    assert SMOKE in commands(ROOT / "README.md")


def test_commands_outside_blocks_exist() -> None:
    """Inline mentions: `atomrl ...` and `make ...` in running text."""
    known = {"train", "sample", "evaluate", "pretrain"}
    for page in PAGES:
        text = page.read_text()
        for words in re.findall(r"`make ([^`]+)`", text):
            check_make(shlex.split(words))
        assert set(re.findall(r"`atomrl ([a-z]+)", text)) <= known, page.name
