"""The settings of runs: each one's config.yaml as it is, and what differs between several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from atomrl.report.sources import Source
from atomrl.util.errors import UserError, first_line
from atomrl.util.files import whole_text

OF_EACH = frozenset({"save_path", "resume"})
"""Keys that two runs never share, or that say nothing about what was run."""


def settings_of(sources: Sequence[Source]) -> dict[str, Any]:
    """The text of each source's config.yaml, null where there is none, and the keys whose values differ.

    Raises:
        UserError: a file cannot be read.
    """
    texts = [None if source.config is None else whole_text(source.config) for source in sources]
    known = [
        _flat(_mapping(source.config, text))
        for source, text in zip(sources, texts, strict=True)
        if source.config is not None and text is not None
    ]
    keys = dict.fromkeys(key for config in known for key in config if key not in OF_EACH)
    differing = [key for key in keys if len({config.get(key) for config in known}) > 1]
    values = iter(known)
    columns = [None if text is None else next(values) for text in texts]
    rows = [[key, [None if column is None else column.get(key) for column in columns]] for key in differing]
    return {"texts": texts, "differing": rows}


def _mapping(path: Path, text: str) -> Mapping[str, Any]:
    """What the file says; as YAML, so that a run of an earlier version, whose keys were others, can be shown too."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML ({first_line(error)}): copy it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no keys with values: is it another file?")
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys, and values as YAML writes them on one line."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = (
                yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("\n...\n").strip()
            )
    return found
