"""Words for a key that takes text stay as they were typed: `save_path=007` is the folder 007, not 7."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from atomrl.config.naming import key_of
from atomrl.util.option_words import section_of
from atomrl.util.options import Options


def as_typed(overrides: Sequence[str], kinds: Sequence[type[Options]]) -> list[str]:
    """Overrides, with quotes around a number or truth value for a key that takes text.

    Args:
        overrides: `key=value`, in the names of this package.
        kinds: options that may have the key; Hydra does not know them, and would make 7 of 007, and true of on.
    """
    return [_quoted(text) if any(_takes_text(kind, text) for kind in kinds) else text for text in overrides]


def _takes_text(kind: type[Options], override: str) -> bool:
    """Whether an override names a key whose values are texts, or null."""
    *sections, name = key_of(override).split(".")
    for section in sections:
        inside = section_of(kind.model_fields[section].annotation) if section in kind.model_fields else None
        if inside is None or not issubclass(inside, Options):
            return False
        kind = inside
    return name in kind.model_fields and _members(kind.model_fields[name].annotation) == {str}


def _members(annotation: Any) -> set[Any]:
    """The types of a key's values, but null."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    parts = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    return {part for part in parts if part is not NoneType}


def _quoted(override: str) -> str:
    """The override in quotes, if Hydra reads a number or a truth value."""
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return override  # said by who composes
    key, _, text = override.partition("=")
    return f'{key}="{text}"' if isinstance(value, int | float) else override
