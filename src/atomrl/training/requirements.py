"""What a training needs before it starts: files that somebody must have made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atomrl.config import Config
from atomrl.util.errors import UserError


def check_needs(config: Config) -> None:
    """Refuse to start without files that the experiment needs, see `Config.needs`.

    Raises:
        UserError: some are missing; all of them are named.
    """
    tree = config.model_dump()
    needs = tree.pop("needs")
    # `file.py:name` names the file
    named = {Path(form) for text in _texts(tree) for form in (text, text.partition(".py:")[0] + ".py")} - {Path()}
    asked = {path: how for path, how in needs.items() if named & {Path(path), *Path(path).parents}}
    if missing := [f"{path} ({how})" for path, how in asked.items() if not Path(path).exists()]:
        raise UserError(f"this experiment needs what is not in {Path.cwd()}: {'; '.join(missing)}")


def _texts(tree: Any) -> Iterator[str]:
    """All texts among the values of nested mappings and lists."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping | list):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _texts(value)
