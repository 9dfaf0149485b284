"""What a word names: a run directory, a checkpoint, a folder of weights, a shipped model or one on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atomrl.checkpoints.folder import CARD, CONFIG
from atomrl.checkpoints.hub import PREFIX, fetch, is_hub_name
from atomrl.checkpoints.published_edm import ARGUMENTS, WEIGHTS, is_published
from atomrl.checkpoints.shipped import BACKBONES, located
from atomrl.util.errors import UserError

LATEST, BEST = "checkpoint_latest.pth", "checkpoint_best.pth"
"""Checkpoints of a run, which `CONFIG` describes."""

METRICS, EVALUATION = "metrics.jsonl", "evaluation"
"""Of a run too: its log, and the folder of the evaluation that it ends with."""

AVERAGED_WEIGHTS = WEIGHTS
"""Of a run too, which calls its averaged weights as the published ones are called."""


@dataclass(frozen=True)
class Named:
    """A model, and the run that made it.

    Attributes:
        weights: a checkpoint, or a folder of weights.
        described: the config.yaml of the run; None: no run's lies beside it.
        origin: what messages and results call it; of a model on the hub its name with the commit.
    """

    weights: Path
    described: Path | None
    origin: str


def named_model(where: str | Path) -> Named:
    """Find what is named; nothing is read, but a model on the hub is fetched.

    Args:
        where: a run directory, for its latest checkpoint; a checkpoint; a folder with model.safetensors and model.json,
            or with the published files of an EDM, or the published weights in it; the name of a shipped model; or
            `hub:user/name`, with `@revision` behind it or without.

    Raises:
        UserError: nothing is there, the run has no checkpoint yet, or it is a file of weights without what describes
            them; or as `hub.fetch`.
    """
    if is_hub_name(where):
        fetched = fetch(str(where))
        return Named(fetched.folder, _beside(fetched.folder), str(fetched.name))
    path = located(where)
    if path.is_dir():
        if (path / CARD).is_file():
            return Named(path, _beside(path), str(path))
        if not any((path / name).is_file() for name in (LATEST, CONFIG)):
            return Named(path, None, str(path))
        if not (path / LATEST).is_file():
            raise UserError(f"the run in {path} has no {LATEST} yet: there is nothing to load or continue yet")
        return _of_run(path / LATEST)
    if not path.is_file():
        raise UserError(
            f"no backbone at {where}: give one of {', '.join(BACKBONES)}, a run directory, a folder, a checkpoint "
            f"file or {PREFIX}user/name; published weights become a folder by `atomrl import`"
        )
    if path.name == AVERAGED_WEIGHTS and is_published(path.parent) and not _is_of_run(path):
        return Named(path.parent, None, str(path))
    if path.name == AVERAGED_WEIGHTS:
        raise UserError(f"{where} holds only weights, and nothing that describes the model: give {_whole(path)}")
    return _of_run(path)


def pinned(where: str) -> str:
    """A name that stays that of the same model: on the hub the one with its commit; any other as it is.

    Raises:
        UserError: as `named_model`.
    """
    return named_model(where).origin if is_hub_name(where) else where


def _of_run(checkpoint: Path) -> Named:
    """A checkpoint, and the config.yaml beside it if there is one."""
    return Named(checkpoint, _beside(checkpoint.parent), str(checkpoint))


def _beside(folder: Path) -> Path | None:
    """The config.yaml of a folder, if it has one."""
    return folder / CONFIG if (folder / CONFIG).is_file() else None


def _is_of_run(path: Path) -> bool:
    """Whether a file of averaged weights is a run's, and no published one."""
    return any((path.parent / name).is_file() for name in (BEST, LATEST, CONFIG))


def _whole(path: Path) -> str:
    """What to give in place of a file of averaged weights."""
    if (path.parent / BEST).is_file():
        return f"{path.parent / BEST}, which holds the same weights"
    if (path.parent / CARD).is_file():
        return f"its folder, {path.parent}"
    return f"a checkpoint of the run that wrote it; published weights need their {ARGUMENTS} beside them"
