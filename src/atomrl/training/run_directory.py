"""The run directory: config.yaml, checkpoints, metrics.jsonl. Created whole or not at all; continued only if asked."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from atomrl.checkpoints.folder import CONFIG
from atomrl.checkpoints.named import BEST, LATEST, METRICS, named_model
from atomrl.checkpoints.stored import Stored, read_stored
from atomrl.config import Config, read_config
from atomrl.config.objects import call_with_objects, objects_of, require_objects
from atomrl.config.published import DECAY_SHAPE, renamed_overrides
from atomrl.domains import model_of
from atomrl.training.changed_settings import changes, require_typed, said_of
from atomrl.user_code.trust import foreign_code, require_trust
from atomrl.util.errors import UserCodeError, UserError
from atomrl.util.files import write_whole

log = logging.getLogger(__name__)

CSV = "csv/metrics.csv"
REPRODUCER, TRACEBACK = "nonfinite_loss.pt", "traceback.txt"
ADAPTERS = "model.lora."
"""Keys that say which weights a run trains."""
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
        UserError: either is not there, or a model is named that no run lies around.
    """
    found = named_model(place)
    if found.described is None or found.weights.is_dir():  # weights of a run that were shared are none
        raise UserError(
            f"{place} is a model, not a run: give a run directory, or a checkpoint of a run next to its {CONFIG}"
        )
    return found.weights, found.described


def described_run(described: Path, trust_code: bool, remedy: str) -> Config:
    """The configuration of a run that may be somebody else's, out of its config.yaml.

    Args:
        described: the file.
        trust_code: its reward may name code that is not the package's.
        remedy: how to say so, for the error.

    Raises:
        UserError: as `read_config`, it names such code and that is not trusted, or objects of a program that were not
            handed over.
    """
    config = read_config(described)
    require_objects(config, described)
    if not trust_code:
        require_trust(config.code, described, remedy)
    return config


def check_resumable(path: Path, config: Config) -> int:
    """First iteration that a resumed run has left; what it stands on is checked before anything of it is written over.

    Raises:
        UserError: there is no run, its checkpoint is damaged or of something else, or the configuration names another
            domain, backbone, seed or adapters than the run began with, or fewer iterations than it has done.
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
        **{key: both for key, both in changes(began, config).items() if key.startswith(ADAPTERS)},
    }
    for key, (old, new) in pairs.items():
        if old != new:
            raise UserError(
                f"resume=true with {key}={new}, but the run in {path} began with {key}={old}: give the same experiment "
                "and the same overrides, or another save_path for another run"
            )
    if changed := said_of(began, config):
        log.warning("%s continues with changed settings: %s", path, changed)
    stored = read_stored(str(checkpoint))
    done = iterations_done(stored, checkpoint)
    model_of(stored, config)  # refuses weights that do not fit
    if missing := STATES - stored.entries:
        raise UserError(f"{checkpoint} cannot be continued, it lacks {', '.join(sorted(missing))}: copy it again")
    if done > config.dataloader.epoches:
        raise UserError(
            f"dataloader.epoches={config.dataloader.epoches}, but the run in {path} has done {done} iterations: "
            "give as many at least, or another save_path for another run"
        )
    return done


def refuse_forgotten(config: Config, overrides: Sequence[str]) -> None:
    """Refuse a command that continues a run and would change what was not typed; see `require_typed`.

    Args:
        config: with `resume`.
        overrides: what was typed.

    Raises:
        UserError: as `require_typed`.
    """
    place = Path(config.save_path or "")
    if (place / LATEST).is_file() and (place / CONFIG).is_file():
        old, typed = read_config(place / CONFIG), renamed_overrides(overrides, composing=False)
        if old.train.scheduler != config.train.scheduler:
            typed.append(f"{DECAY_SHAPE}={config.train.decay_shape}")  # of the schedule that was typed
        require_typed(place, old, config, typed)


def iterations_done(stored: Stored, checkpoint: Path) -> int:
    """How many iterations a checkpoint stands after.

    Raises:
        UserError: it does not say so.
    """
    last = stored.card.get("iteration")
    if not isinstance(last, int):
        raise UserError(f"{checkpoint} is not a run's checkpoint: it lacks the number of its iteration")
    return last + 1


def how_to_resume(folder: Path, config: Config, *more: str) -> str:
    """The command that continues a run, with these `key=value`; of one with objects of a program, the call."""
    if objects_of(config):
        return f"{call_with_objects('resume', folder, config, *more)} in Python"
    trust = ["--trust-code"] if foreign_code(config.code) else []
    return shlex.join(["atomrl", "resume", str(folder), *trust, *more])


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
            how = f"continue the run in it with `atomrl resume {path}`" if (path / LATEST).is_file() else "remove it"
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
    if not _has_begun(path):
        shutil.rmtree(path)


def keep_traceback(path: Path, error: UserCodeError) -> None:
    """Write what code of the user's raised into the directory of a run that has anything to keep, if it can be."""
    if _has_begun(path):
        with suppress(UserError):  # a full disk must not hide it
            write_whole(path / TRACEBACK, "".join(traceback.format_exception(error.error)))
            error.traceback_file = path / TRACEBACK


def _has_begun(path: Path) -> bool:
    """Whether a run has left anything but its configuration."""
    metrics = path / METRICS
    begun = metrics.is_file() and metrics.stat().st_size > 0
    return begun or any((path / name).exists() for name in (LATEST, BEST, REPRODUCER))
