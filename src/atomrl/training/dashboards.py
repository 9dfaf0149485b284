"""What is seen of a training while it runs beside its numbers: TensorBoard, and the seam to what shows the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from atomrl.core.records import Stats
from atomrl.core.stages import TOTAL
from atomrl.domains.base import Domain
from atomrl.export.exporter import Cell, Exporter, Picture
from atomrl.training.drawn import Drawn
from atomrl.training.log_groups import POLICY, REWARD, SAMPLES, tags
from atomrl.training.rl_module import RLModule
from atomrl.util.errors import UserError

log = logging.getLogger(__name__)

SHOWN = 8
"""Samples of an iteration that are looked at."""

PICTURE, TABLE, HISTOGRAM = f"{SAMPLES}/picture", f"{SAMPLES}/table", "_histogram"

Rows = Sequence[Mapping[str, Cell]]


@dataclass(frozen=True)
class View:
    """What is shown of an iteration's samples.

    Attributes:
        histograms: {name: values of all samples that have one, (n,)}.
        rows: of a table of `SHOWN` samples; one may lack what another one has.
        picture: of the same; None if it cannot be drawn.
    """

    histograms: Mapping[str, NDArray[np.float64]]
    rows: Rows = ()
    picture: Picture | None = field(default=None)


class Dashboard(Protocol):
    """Shows a training."""

    def show(self, iteration: int, numbers: Stats, view: View | None) -> None:
        """An iteration's numbers, by their names with groups, and sometimes its samples."""

    def close(self, failed: bool) -> None:
        """The training has ended."""


class TensorBoard:
    """Writes TensorBoard's event files.

    Args:
        folder: for them.
        first: iteration that the run begins with, or goes on with; what a killed run has shown from there on is hidden.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self._writer: Any = SummaryWriter(folder, purge_step=first or None)

    def show(self, iteration: int, numbers: Stats, view: View | None) -> None:
        """See `Dashboard`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, iteration)
        if view is not None:
            for name, values in view.histograms.items():
                self._writer.add_histogram(name, values, iteration)
            if view.picture is not None:
                self._writer.add_image(PICTURE, view.picture, iteration, dataformats="HWC")
            self._writer.add_text(TABLE, as_markdown(view.rows), iteration)
        self._writer.flush()  # an iteration takes seconds, and somebody may look

    def close(self, failed: bool) -> None:
        """See `Dashboard`."""
        self._writer.close()


class Dashboards(Callback):
    """Shows each iteration, and every few iterations its samples; on rank 0 alone.

    Args:
        boards: that show it.
        every: iterations from one look at the samples to the next, the first of the run being one; 0: none.
        domain: draws them.
        exporter: says what there is to say of each.
    """

    def __init__(self, boards: Sequence[Dashboard], every: int, domain: Domain[Any, Any], exporter: Exporter) -> None:
        self._boards, self._every, self._domain, self._exporter = boards, every, domain, exporter
        self._draws, self._failed = True, False

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show it (Lightning)."""
        assert isinstance(pl_module, RLModule)
        assert pl_module.drawn is not None
        iteration = trainer.current_epoch
        asked = bool(self._boards and self._every) and iteration % self._every == 0
        view = self._view(pl_module.drawn) if asked else None
        for board in self._boards:
            board.show(iteration, tags(pl_module.groups), view)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Remember that the training did not end by itself (Lightning)."""
        self._failed = True

    def close(self) -> None:
        """End all of them."""
        for board in self._boards:
            board.close(self._failed)

    def _view(self, drawn: Drawn) -> View:
        """What is shown of the samples: histograms of all, a few of them one by one, evenly over their ids."""
        few = drawn[torch.linspace(0, len(drawn) - 1, min(SHOWN, len(drawn))).round().long()]
        few = few.to(torch.device("cpu"))
        said = self._exporter.about(few.structures)
        scores = [_scores(few, row) for row in range(len(few))]
        rows = [
            {"sample_id": f"{name:05d}", **about, **numbers}
            for name, about, numbers in zip(few.prompts.sample_ids.tolist(), said, scores, strict=True)
        ]
        return View(histograms(drawn), rows, self._picture(few, rows))

    def _picture(self, few: Drawn, rows: Rows) -> Picture | None:
        """A picture of them; what it lacks is said once."""
        if not self._draws:
            return None
        try:
            return self._domain.picture(few.structures, [_caption(row) for row in rows])
        except UserError as error:
            self._draws = False
            log.warning(f"no pictures of the samples: {error}")
            return None


def histograms(drawn: Drawn) -> dict[str, NDArray[np.float64]]:
    """Values of all samples: each channel's scores, total and advantage, number of atoms."""
    columns = {f"{REWARD}/{name}": values for name, values in drawn.table.scored.items()}
    if TOTAL in drawn.table.diagnostics:
        columns[f"{REWARD}/{TOTAL}"] = drawn.table.diagnostics[TOTAL]
    columns |= {f"{POLICY}/advantage": drawn.advantages, f"{SAMPLES}/atoms": drawn.structures.sizes}
    finite = {name: _finite(values) for name, values in columns.items()}
    return {f"{name}{HISTOGRAM}": values for name, values in finite.items() if len(values)}


def _finite(values: Tensor) -> NDArray[np.float64]:
    """The numbers among values."""
    known: NDArray[np.float64] = values[values.isfinite()].detach().cpu().double().numpy()
    return known


def _scores(few: Drawn, row: int) -> dict[str, Cell]:
    """What a sample scored, as far as it did."""
    table = few.table
    columns = {**{name: table.diagnostics[name] for name in (TOTAL,) if name in table.diagnostics}, **table.scored}
    columns |= {"advantage": few.advantages}
    numbers: dict[str, Cell] = {"atoms": int(few.structures.sizes[row])}
    numbers |= {name: float(values[row]) for name, values in columns.items() if bool(values[row].isfinite())}
    reason = table.reasons[row]
    return numbers if reason is None else {**numbers, "reason": reason}


def _caption(row: Mapping[str, Cell]) -> str:
    """What stands below a sample in a picture."""
    name = next((str(row[key]) for key in ("smiles", "formula", "rdkit_reason") if key in row), "")
    name = name if len(name) <= 24 else f"{name[:23]}…"
    scored = next((f"{key} {row[key]:.3f}" for key in (TOTAL, "advantage") if key in row), str(row.get("reason", "")))
    return f"{row['sample_id']}  {name}\n{scored}"


def columns_of(rows: Rows) -> list[str]:
    """Names of all that any row says."""
    return list(dict.fromkeys(name for row in rows for name in row))


def as_markdown(rows: Rows) -> str:
    """Rows as a table, empty where one has nothing."""
    names = columns_of(rows)
    lines = [names, ["---"] * len(names), *([_cell(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(value: Cell) -> str:
    """A value that Markdown leaves as it is: SMILES have brackets and backslashes."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"`{value}`" if isinstance(value, str) and value else str(value)
