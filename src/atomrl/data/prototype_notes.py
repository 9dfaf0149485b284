"""The JSON files beside a crystal set and its build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomrl.util.errors import UserError


def read_notes(path: Path, remedy: str, entries: Mapping[str, type] | None = None) -> dict[str, Any]:
    """A mapping out of a JSON file.

    Args:
        path: of the file.
        remedy: what to do if it is not there or of no use, for errors.
        entries: what it must hold, {name: type}.

    Raises:
        UserError: it is missing, no JSON or no mapping, or lacks an entry.
    """
    if not path.is_file():
        raise UserError(f"no {path.name} in {path.parent}; {remedy}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): is it truncated? {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__}, not a mapping; {remedy}")
    for name, kind in (entries or {}).items():
        if not isinstance(found.get(name), kind):
            raise UserError(f"{path} lacks the entry '{name}', or it is no {kind.__name__}; {remedy}")
    return found
