"""The run directory: config.yaml, checkpoints, metrics.jsonl. Created whole or not at all; continued only if asked."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from atomrl.checkpoints.stored import read_stored
from atomrl.config import Config, read_config
from atomrl.domains import domain_of
from atomrl.user_code.trust import require_trust
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

log = logging.getLogger(__name__)

LATEST, BEST, WEIGHTS = "checkpoint_latest.pth", "checkpoint_best.pth", "generative_model_ema.npy"
CONFIG, METRICS, CSV = "config.yaml", "metrics.jsonl", "csv/metrics.csv"
REPRODUCER = "nonfinite_loss.pt"
FREE = frozenset(
    {
        *("save_path", "resume", "threads", "device", "max_time_hours", "save_every", "needs", "wandb", "log"),
        *(
            "early_stop_metric",
            "early_stop_mode",
            "early_stop_minutes",
            "early_stop_delta",
            "early_stop_patience",
            "evaluation",
            "dataloader.epoches",
        ),
        *("reward.workers", "reward.batch_size", "train.rank_timeout"),
    }
)
"""Keys that a resumed run may change without a word: how long it trains, where, and what is written and judged."""

STATES = frozenset({"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step"})
"""What Lightning continues from."""


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


def described_run(described: Path, trust_code: bool, remedy: str) -> Config:
    """The configuration of a run that may be somebody else's, out of its config.yaml.

    Args:
        described: the file.
        trust_code: its reward may name code that is not the package's.
        remedy: how to say so, for the error.

    Raises:
        UserError: as `read_config`, or it names such code and that is not trusted.
    """
    config = read_config(described)
    if not trust_code:
        require_trust(config.code, described, remedy)
    return config


def check_resumable(path: Path, config: Config) -> int:
    """First iteration that a resumed run has left; what it stands on is checked before anything of it is written over.

    Raises:
        UserError: there is no run, its checkpoint is damaged or of something else, or the configuration names another
            domain, backbone or seed than the run began with, or fewer iterations than it has done.
    """
    if not (path / LATEST).is_file():
        how = f"remove {path} and leave resume out" if path.exists() else "leave resume out"
        raise UserError(f"nothing to resume: {path / LATEST} does not exist; {how} to start a run there")
    checkpoint, described = find_run(path)
    began = read_config(described)
    pairs = {
        "domain": (began.domain, config.domain),
        "model.backbone": (began.model.backbone, config.model.backbone),
        "seed": (began.seed, config.seed),
    }
    for key, (old, new) in pairs.items():
        if old != new:
            raise UserError(
                f"resume=true with {key}={new}, but the run in {path} began with {key}={old}: give the same experiment "
                "and the same overrides, or another save_path for another run"
            )
    if changed := _changes(began.model_dump(), config.model_dump()):
        log.warning("%s goes on with other settings than it had: %s", path, "; ".join(changed))
    stored = read_stored(str(checkpoint))
    done = stored.card.get("iteration")
    if not isinstance(done, int):
        raise UserError(f"{checkpoint} is not a run's checkpoint: it lacks the number of its iteration")
    domain_of(config).load(stored, config)  # refuses weights that do not fit
    if missing := STATES - stored.entries:
        raise UserError(f"{checkpoint} cannot be continued, it lacks {', '.join(sorted(missing))}: copy it again")
    if done + 1 > config.dataloader.epoches:
        raise UserError(
            f"dataloader.epoches={config.dataloader.epoches}, but the run in {path} has done {done + 1} iterations: "
            "give as many at least, or another save_path for another run"
        )
    return done + 1


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each key whose value changed, with both values; not those of `FREE`."""
    found: list[str] = []
    for name, value in new.items():
        key, before = f"{prefix}{name}", old.get(name)
        if key in FREE or value == before:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            found += _changes(before, value, f"{key}.")
        else:
            found.append(f"{key}={value}, was {before}")
    return found


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
        UserError: it holds a run or something else and `resume` is off; it cannot be written; the disk is full.
    """
    try:
        created = not path.exists()
        if not resume and not created and (not path.is_dir() or any(path.iterdir())):
            how = "set resume=true to continue the run in it" if (path / LATEST).is_file() else "remove it"
            raise UserError(f"{path} exists: {how}, or give another save_path")
        path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise UserError(f"cannot create the run directory {path}: {error.strerror}") from error
    try:
        if free < needed_bytes:
            needed, left = (f"{count / 2**20:.1f} MiB" for count in (needed_bytes, free))
            raise UserError(f"{path}: the run needs {needed}, {left} are free on that disk")
        write_whole(path / CONFIG, config_yaml)
    except UserError:
        if created:
            shutil.rmtree(path)
        raise
    return path


def forget_if_empty(path: Path) -> None:
    """Take back the directory of a run that ended before it had anything to keep, so that it can start there again."""
    metrics = path / METRICS
    begun = metrics.is_file() and metrics.stat().st_size > 0
    if begun or any((path / name).exists() for name in (LATEST, BEST, REPRODUCER)):
        return
    shutil.rmtree(path)
