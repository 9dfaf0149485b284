"""Nested mappings and lists, as YAML makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested mappings by their dotted keys; an empty mapping has none."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def texts(tree: Any) -> Iterator[str]:
    """All texts among the values."""
    return (text for _, text in named_texts(tree))


def named_texts(tree: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All texts among the values, each with the key that it, or the list that holds it, stands under."""
    if isinstance(tree, str):
        yield name, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from named_texts(value, str(key))
    elif isinstance(tree, list):
        for value in tree:
            yield from named_texts(value, name)
