"""Metrics as one JSON object per line: a Lightning logger that survives a kill and a resume."""

from __future__ import annotations

import csv
import io
import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from atomrl.util.files import write_whole


class JSONLLogger(Logger):
    """Appends {"iteration": n, name: value, ...} to metrics.jsonl; not-a-number becomes null.

    Args:
        path: of the file.
        first_iteration: lines from here on, left by a run that was killed after its last checkpoint, are dropped.
        table: of a CSV file with the same numbers, or None. It is written anew with each line, since a later line may
            have a number that the earlier ones lack.
    """

    def __init__(self, path: Path, first_iteration: int = 0, table: Path | None = None) -> None:
        super().__init__()
        self.path, self.table = path, table
        self.last = -1
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _iteration(line) < first_iteration]
            write_whole(path, "".join(f"{line}\n" for line in kept))
            self.last = max((int(_iteration(line)) for line in kept), default=-1)

    @property
    def name(self) -> str:
        """Name of the logger (Lightning)."""
        return "jsonl"

    @property
    def version(self) -> str:
        """No versions: a run has one file (Lightning)."""
        return ""

    @property
    def experiment(self) -> Path:
        """The file (Lightning)."""
        return self.path

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line (Lightning)."""
        values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        values.pop("epoch", None)
        with self.path.open("a") as file:
            file.write(json.dumps({"iteration": step, **values}) + "\n")
        if self.table is not None:
            write_whole(self.table, _as_csv([json.loads(line) for line in self.path.read_text().splitlines()]))

    def complete(self, iteration: int, metrics: dict[str, float]) -> None:
        """Append the line of a checkpoint's iteration if the file ends before it.

        A line is written after its checkpoint, so a kill between the two leaves a file without it.
        """
        if self.last < iteration:
            self.log_metrics(metrics, iteration)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """The configuration is in config.yaml (Lightning)."""


def _as_csv(lines: list[dict[str, Any]]) -> str:
    """A table with a column for each number that any line has; empty where a line has none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _iteration(line: str) -> float:
    """Iteration of a line; infinite for a line that a kill cut short."""
    try:
        return float(json.loads(line)["iteration"])
    except (json.JSONDecodeError, KeyError):
        return math.inf
