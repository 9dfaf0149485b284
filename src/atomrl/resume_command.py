"""`atomrl resume RUN`: continue a run as its own config.yaml says."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from atomrl.checkpoints.folder import CONFIG
from atomrl.checkpoints.named import LATEST
from atomrl.checkpoints.stored import read_stored
from atomrl.config import Config, with_overrides
from atomrl.evaluation.evaluate import TABLES
from atomrl.training.changed_settings import require_lengthening
from atomrl.training.crew import Crew
from atomrl.training.run import train_and_evaluate
from atomrl.training.run_directory import described_run, find_run, how_to_resume, iterations_done
from atomrl.util.errors import UserError


def resume_command(options: argparse.Namespace) -> None:
    """Continue; a run that has nothing left to do is named as finished.

    Raises:
        UserError: no run there, code in its config.yaml that is not trusted, words that would make another run of it,
            or as `train`.
    """
    with Crew(options.launch) as crew:  # around all, so that a mistake is told once
        require_lengthening(options.overrides)
        place = _run(options.run)
        described = described_run(place / CONFIG, options.trust_code, "--trust-code")
        config = with_overrides(described, options.overrides).changed(save_path=str(place), resume=True)
        again = any(word.lstrip("+~").startswith("evaluation") for word in options.overrides)
        if not again and (said := _finished(place, config)):
            if crew.launch.rank == 0:
                print(said)
            return
        train_and_evaluate(config, place.name, shlex.join(["atomrl", *options.words]), crew)


def _run(where: Path) -> Path:
    """The run directory that is named.

    Raises:
        UserError: there is none, or another checkpoint than the latest is named, which no run can go on from.
    """
    checkpoint, described = find_run(where)
    if checkpoint.name != LATEST:
        raise UserError(
            f"{where}: a run goes on from its {LATEST}: give {described.parent}; for a new run from this model: "
            f"atomrl train model.backbone={where}"
        )
    return described.parent


def _finished(place: Path, config: Config) -> str | None:
    """What to say of a run that is done and judged; None: there is something left to do."""
    if config.evaluation.samples and not (place / "evaluation" / TABLES).is_file():
        return None
    done = iterations_done(read_stored(str(place / LATEST)), place / LATEST)
    if done != config.dataloader.epoches:
        return None
    longer = how_to_resume(place, config, f"dataloader.epoches={2 * done}")
    return f"{place} has done its {done} iterations: nothing is left to do; for more: {longer}"
