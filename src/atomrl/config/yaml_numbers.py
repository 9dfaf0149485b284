"""Numbers that a YAML file does not hold as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from atomrl.util.errors import UserError

NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def require_plain_numbers(path: Path) -> None:
    """Refuse a number to the base of 60, as YAML 1.1 reads times: `1:30` is 90 there, whatever its unit.

    Raises:
        UserError: the file has one; where, and as what it would be read.
        OSError, UnicodeDecodeError, yaml.YAMLError: the file cannot be read, or is not YAML.
    """
    with path.open(encoding="utf-8") as file:
        tree = yaml.compose(file, Loader=yaml.SafeLoader)
    for node in _scalars(tree):
        if node.tag in NUMBERS and ":" in node.value:
            raise UserError(
                f"{path}, line {node.start_mark.line + 1}: YAML reads {node.value} as {yaml.safe_load(node.value)}, to "
                f"the base of 60; write the number, or put a text in quotes"
            )


def _scalars(tree: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Keys and values that are no lists or mappings, each once however often aliases name it."""
    waiting, seen = [tree], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            yield node
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += (part for pair in node.value for part in pair)
