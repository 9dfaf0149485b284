"""What the words of `atomrl report` name: a run, with its log and its evaluation, or an evaluation alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atomrl.checkpoints.folder import CARD, CONFIG
from atomrl.checkpoints.named import EVALUATION, METRICS, named_model
from atomrl.checkpoints.shipped import BACKBONES
from atomrl.evaluation.evaluate import JSON
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class Source:
    """One run, or one evaluation.

    Attributes:
        name: for people; no two sources of a report have the same.
        run: its directory; None: an evaluation that stands by itself.
        evaluation: the folder with its tables; None: there is none yet.
    """

    name: str
    run: Path | None
    evaluation: Path | None

    @property
    def folder(self) -> Path:
        """Where it lies."""
        folder = self.evaluation if self.run is None else self.run
        assert folder is not None
        return folder

    @property
    def log(self) -> Path | None:
        """Its metrics.jsonl, if it has one."""
        return self.run / METRICS if self.run is not None and (self.run / METRICS).is_file() else None

    @property
    def config(self) -> Path | None:
        """Its config.yaml, if it has one."""
        return self.run / CONFIG if self.run is not None and (self.run / CONFIG).is_file() else None


def find_sources(words: Sequence[str | Path]) -> list[Source]:
    """Find what is named; nothing is read.

    Args:
        words: for each a run directory, a checkpoint in one, or the folder of an evaluation.

    Raises:
        UserError: nothing is there, it is neither, nothing of the run has been written yet, or it is named twice.
    """
    found = [_find(word) for word in words]
    folders = [source.folder.resolve() for source in found]
    if not found or len(set(folders)) < len(folders):
        raise UserError(f"{' '.join(map(str, words))}: give one or more runs or evaluations, each once")
    alike = Counter(folder.name for folder in folders)
    names = [folder.name if alike[folder.name] == 1 else str(word) for folder, word in zip(folders, words, strict=True)]
    return [Source(name, source.run, source.evaluation) for name, source in zip(names, found, strict=True)]


def _find(where: str | Path) -> Source:
    """A source that has no name yet."""
    path = Path(where)
    if (path / JSON).is_file():
        return Source("", None, path)
    if not (path / METRICS).is_file():
        path = _run_of(where)
    evaluation = path / EVALUATION
    source = Source("", path, evaluation if (evaluation / JSON).is_file() else None)
    if source.evaluation is None and (source.log is None or not source.log.stat().st_size):
        raise UserError(
            f"nothing to report of {where}: no iteration of that run has ended, and it has no evaluation; wait for its "
            "first line in metrics.jsonl"
        )
    return source


def _run_of(where: str | Path) -> Path:
    """The run directory that a word names.

    Raises:
        UserError: there is none.
    """
    path = Path(where)
    if not path.exists() and str(where) not in BACKBONES:
        raise UserError(
            f"nothing at {where}: give a run directory, a checkpoint in one, or the folder of an evaluation"
        )
    if (path / CONFIG).is_file() and not (path / CARD).is_file():  # with a card it is a model that was shared
        return path
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{where} is empty: give a run directory, a checkpoint in one, or the folder of an evaluation")
    found = named_model(where)
    if found.described is None or found.weights.is_dir():
        raise UserError(
            f"{where} is a model, not a run: give a run directory, a checkpoint in one, or the folder of an "
            "evaluation of that model (atomrl evaluate)"
        )
    return found.described.parent
