"""Nested mappings and lists, as YAML makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def texts(tree: Any) -> Iterator[str]:
    """All texts among the values."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping | list):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from texts(value)
