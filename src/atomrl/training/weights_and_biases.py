"""Weights & Biases: one run there for one run directory, however often the training is continued."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

from atomrl.config import Config
from atomrl.core.records import Stats
from atomrl.training.dashboards import PICTURE, TABLE, View, columns_of
from atomrl.util.errors import UserError, first_line
from atomrl.util.files import write_whole
from atomrl.util.optional_imports import extra

RUN_ID = "wandb/run_id"
"""File of a run directory: what the run is called there."""


class WeightsAndBiases:
    """Shows a training there; implements `dashboards.Dashboard`.

    `WANDB_MODE=offline` keeps it on disk, in the run directory's `wandb/`; `wandb sync` sends it later.

    Args:
        config: of the run.
        folder: the run directory.

    Raises:
        UserError: the package is not installed, nobody is logged in, or it does not answer.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        with extra("wandb"):
            import wandb  # noqa: PLC0415 - an extra
        self._wandb: Any = wandb
        name = run_id(folder)
        try:
            self._run = wandb.init(
                project=config.wandb.project,
                name=config.wandb.name,
                id=name,
                dir=folder,
                resume="allow",
                reinit="create_new",  # beside one that the calling program may have
            )
        except wandb.Error as error:
            raise UserError(
                f"wandb.enabled=true, but W&B says: {first_line(error)}; `wandb login` logs in, WANDB_MODE=offline "
                f"keeps the run on disk, and without {folder / RUN_ID} a new run begins there"
            ) from error
        self._run.config.update(config.model_dump(mode="json"), allow_val_change=True)

    def show(self, iteration: int, numbers: Stats, view: View | None) -> None:
        """See `Dashboard`; an iteration that was shown before the run was killed is not shown again."""
        if iteration < self._run.step:
            return
        values: dict[str, Any] = dict(numbers)
        if view is not None:
            names = columns_of(view.rows)
            cells = [[row.get(name) for name in names] for row in view.rows]
            values |= {name: self._wandb.Histogram(column) for name, column in view.histograms.items()}
            values |= {TABLE: self._wandb.Table(columns=names, data=cells, allow_mixed_types=True)}
            values |= {} if view.picture is None else {PICTURE: self._wandb.Image(view.picture)}
        self._run.log(values, step=iteration, commit=True)

    def close(self, failed: bool) -> None:
        """See `Dashboard`; waits until all is sent."""
        self._run.finish(exit_code=int(failed))


def run_id(folder: Path) -> str:
    """What a run directory's run is called there; a new name the first time.

    Raises:
        UserError: the file holds none.
    """
    path = folder / RUN_ID
    if not path.is_file():
        name = secrets.token_hex(4)
        write_whole(path, f"{name}\n")
        return name
    name = path.read_text(errors="replace").strip()
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", name):
        raise UserError(f"{path} holds {name[:40]!r}, no id of a W&B run: remove it, and a new run begins there")
    return name
