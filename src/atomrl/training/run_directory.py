"""The run directory: config.yaml, checkpoints, metrics.jsonl. Created whole or not at all; continued only if asked."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

from atomrl.errors import UserError
from atomrl.files import write_whole

LATEST, BEST, WEIGHTS = "checkpoint_latest.pth", "checkpoint_best.pth", "generative_model_ema.npy"
CONFIG, METRICS = "config.yaml", "metrics.jsonl"


def fresh_path(name: str) -> Path:
    """A path under outputs/ that no run has: by experiment, date, time and process."""
    return Path("outputs") / name / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{os.getpid()}"


def find_run(place: Path) -> tuple[Path, Path]:
    """Checkpoint and config.yaml of a run.

    Args:
        place: the run directory, for its latest checkpoint, or a checkpoint in one.

    Raises:
        UserError: either is not there.
    """
    checkpoint = place / LATEST if place.is_dir() else place
    described = checkpoint.parent / CONFIG
    for path in (checkpoint, described):
        if not path.is_file():
            raise UserError(f"no {path}: give a run directory, or a checkpoint of a run next to its {CONFIG}")
    return checkpoint, described


def open_run(path: Path, config_yaml: str, resume: bool, needed_bytes: int) -> Path:
    """Create a run directory, or open the one to continue.

    Args:
        path: of the directory.
        config_yaml: the resolved configuration.
        resume: continue what is there.
        needed_bytes: free space that the run's checkpoints will take.

    Returns:
        The path.

    Raises:
        UserError: it holds a run and `resume` is off; `resume` is on and there is nothing to continue; it cannot be
            written; the disk is full.
    """
    if resume:
        if not (path / LATEST).is_file():
            raise UserError(f"nothing to resume: {path / LATEST} does not exist; leave resume out to start a run there")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists: set resume=true to continue the run in it, or give another save_path")
    created = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise UserError(f"cannot create the run directory {path}: {error.strerror}") from error
    try:
        if free < needed_bytes:
            raise UserError(f"{path}: the run needs {needed_bytes >> 20} MiB, {free >> 20} MiB are free on that disk")
        write_whole(path / CONFIG, config_yaml)
    except UserError:
        if created:
            shutil.rmtree(path)
        raise
    return path
