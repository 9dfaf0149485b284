"""What the queue writes down about each step: its command, its commits, its time."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from atomrl.util.errors import UserError
from atomrl.util.files import write_json
from studies.steps import StudyStep

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Record:
    """One step.

    Attributes:
        command: that it ran.
        commits: of the code, one for each time that it was started on another one.
        seconds: that it ran, over all starts; a time that ended by a kill of the queue is missing.
    """

    command: str
    commits: tuple[str, ...]
    seconds: float = 0.0


def path_of(folder: Path, step: StudyStep) -> Path:
    """Where a step's record is."""
    return folder / "steps" / f"{step.name}.json"


def read(folder: Path, step: StudyStep) -> Record | None:
    """A step's record; None if it never ran in this folder, or got nowhere with another command.

    Raises:
        UserError: it got somewhere with another command.
    """
    path = path_of(folder, step)
    if not path.is_file():
        return None
    values = json.loads(path.read_text())
    record = Record(values["command"], tuple(values["commits"]), values["seconds"])
    if record.command == step.command:
        return record
    if step.output.whole() or step.output.share():
        raise UserError(
            f"{folder} holds {step.name} of other settings (`{record.command}`, now `{step.command}`): "
            "give the same settings, or another --folder"
        )
    return None


def write(folder: Path, step: StudyStep, record: Record) -> None:
    """Save a step's record."""
    write_json(path_of(folder, step), asdict(record))


def commit() -> str:
    """Of the code that runs, with `-dirty` if files differ from it; `unknown` outside a git checkout."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    words = [git, "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "unknown"
