"""The evaluation that belongs to shared weights: its tables, if they judged these weights and no others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomrl.evaluation.evaluate import JSON, TABLES
from atomrl.sharing.scrubbed import shared_command, shared_text, without_paths
from atomrl.util.errors import UserError, first_line


@dataclass(frozen=True)
class Evaluated:
    """An evaluation as others may see it.

    Attributes:
        tables: {file: content as JSON has it}, the main table first.
        text: all tables in Markdown.
    """

    tables: dict[str, Any]
    text: str

    @property
    def main(self) -> dict[str, Any]:
        """The main table."""
        table: dict[str, Any] = self.tables[JSON]
        return table

    @property
    def seeds(self) -> list[int]:
        """Of the samples, each once."""
        return list(dict.fromkeys(seed for column in self.main["columns"].values() for seed in column["seeds"]))


def read_evaluation(folder: Path, weights: str) -> Evaluated:
    """The evaluation in a folder.

    Args:
        folder: with evaluation.json and evaluation.md.
        weights: the hash of those that it must have judged, as in `DrawnBy`.

    Raises:
        UserError: there is none, it is damaged, it judged other weights, or it does not say which.
    """
    again = "make it again with `atomrl evaluate --trained RUN`, and give its folder with --evaluation"
    try:
        tables = {path.name: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("evaluation*.json"))}
        text = (folder / TABLES).read_text("utf-8")
        columns = tables[JSON]["columns"]
        known = {label: column.get("model") for label, column in columns.items()}
        commands = [str(column["command"]) for column in columns.values()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder} holds no evaluation ({first_line(error)}): {again}") from error
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / JSON} is damaged ({first_line(error)}): {again}") from error
    if not any(known.values()):
        raise UserError(f"{folder} does not say which weights it judged, an earlier version wrote it: {again}")
    if not any(model and model["weights"] == weights for model in known.values()):
        raise UserError(f"{folder} judged other weights than these, of another iteration perhaps: {again}")
    for command in commands:
        text = text.replace(command, shared_command(command))
    return Evaluated({name: _shared(table) for name, table in tables.items()}, shared_text(text))


def _shared(table: dict[str, Any]) -> Any:
    """A table as others may see it."""
    columns = {
        label: {**column, "command": shared_command(column["command"])} for label, column in table["columns"].items()
    }
    return without_paths({**table, "columns": columns})
