"""What a word on the command line names: a run directory, a checkpoint, a folder of weights or a shipped model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atomrl.checkpoints.folder import CARD
from atomrl.checkpoints.published_edm import ARGUMENTS, WEIGHTS
from atomrl.checkpoints.shipped import BACKBONES, located
from atomrl.util.errors import UserError

LATEST, BEST, CONFIG = "checkpoint_latest.pth", "checkpoint_best.pth", "config.yaml"
"""Files of a run: its checkpoints, and what describes it."""

AVERAGED_WEIGHTS = WEIGHTS
"""Of a run too, which calls its averaged weights as the published ones are called."""


@dataclass(frozen=True)
class Named:
    """A model, and the run that made it.

    Attributes:
        weights: a checkpoint, or a folder of weights.
        described: the config.yaml of the run; None: no run's lies beside it.
    """

    weights: Path
    described: Path | None


def named_model(where: str | Path) -> Named:
    """Find what is named; nothing is read.

    Args:
        where: a run directory, for its latest checkpoint; a checkpoint; a folder with model.safetensors and model.json,
            or with the published files of an EDM; or the name of a shipped model.

    Raises:
        UserError: nothing is there, the run has no checkpoint yet, or it is a file of weights without what describes
            them.
    """
    path = located(where)
    if path.is_dir():
        if (path / CARD).is_file() or not any((path / name).is_file() for name in (LATEST, CONFIG)):
            return Named(path, None)
        if not (path / LATEST).is_file():
            raise UserError(f"the run in {path} has no {LATEST} yet: nothing of it can be loaded or continued")
        return _of_run(path / LATEST)
    if not path.is_file():
        raise UserError(
            f"no backbone at {where}: give one of {', '.join(BACKBONES)}, a run directory, a folder or a checkpoint "
            "file; published weights become a folder by `atomrl import`"
        )
    if path.name == AVERAGED_WEIGHTS:
        raise UserError(f"{where} holds weights alone, and nothing that describes the model: give {_whole(path)}")
    return _of_run(path)


def _of_run(checkpoint: Path) -> Named:
    """A checkpoint, and the config.yaml beside it if there is one."""
    described = checkpoint.parent / CONFIG
    return Named(checkpoint, described if described.is_file() else None)


def _whole(path: Path) -> str:
    """What to give in place of a file of averaged weights."""
    if (path.parent / BEST).is_file():
        return f"{path.parent / BEST}, which holds the same weights"
    if (path.parent / ARGUMENTS).is_file():
        return f"its folder, {path.parent}"
    return "a checkpoint of the run that wrote it, or for published weights the folder with its args.pickle"
