"""What options allow, in words: one-line messages out of pydantic's findings, and the cells of the table of keys."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
"""Pydantic's errors about a bound, and the entry of their context that says which."""

KINDS: Mapping[str, Callable[[Any], Any]] = {"gt": Gt, "ge": Ge, "lt": Lt, "le": Le}
"""What stands at a field for each of them."""

OUT_OF_RANGE = {*BOUNDS, "finite_number", "literal_error", "nan"}
"""Errors about a value of the right type."""

UNKNOWN = {"extra_forbidden", "invalid_key"}
"""Errors about an option that there is not; YAML has names that are no texts, too."""

CLOSE = 0.85
"""How like a name of another section an unknown one must be to be taken for it, from 0 to 1."""

AT = "{at}"
"""In a sentence of `contradiction`: the dotted path of the section that it is about, e.g. `train.`."""


@dataclass(frozen=True)
class Says:
    """How a message and the table of keys say what an option allows, where its bounds do not say it best."""

    words: str


@dataclass(frozen=True)
class Unit:
    """What an option's number is in, for the tables of keys."""

    symbol: str


def unit_of(field: FieldInfo) -> str:
    """The unit of an option; empty for a pure number, or what is none."""
    return next((mark.symbol for mark in _marks(field.annotation, field.metadata) if isinstance(mark, Unit)), "")


def explained(error: ValidationError, kind: type[BaseModel], given: Mapping[str, Any], from_text: bool = False) -> str:
    """One line about the first thing that is wrong; an unknown option comes first.

    Args:
        error: what pydantic found.
        kind: of the options.
        given: values that were checked.
        from_text: they are a YAML's, where 1 and 1.0 are the same number; it is shown as what it was taken for.
    """
    found = error.errors(include_url=False)
    first = next((entry for entry in found if entry["type"] in UNKNOWN), found[0])
    section, field, names = _place(kind, first["loc"])
    if first["type"] in UNKNOWN and field is None:
        return _unknown(kind, section, [*names, str(first["loc"][len(names)])])
    if first["type"] == "contradiction":
        inside = names if field is None else names[:-1]
        return first["msg"].replace(AT, "".join(f"{name}." for name in inside))
    key, deeper = ".".join(names), len(first["loc"]) > len(names)
    if field is None or (first["type"] == "missing" and not deeper):
        return f"{key}: must be given" if field else f"{key}={_shown(first, from_text)}: must be keys with values"
    if first["type"] in OUT_OF_RANGE:
        return f"{key}={_shown(first, from_text)}: {allowed(field, deeper and first)}"
    value: Any = given
    for name in names:
        value = value[int(name) if isinstance(value, list | tuple) else name]
    words = allowed(field)
    if Says in map(type, field.metadata):
        return f"{key}={value!r}: {words}"
    return f"{key}={value!r} is not of type {type_name(field.annotation)}{': ' if words else ''}{words}"


def allowed(field: FieldInfo, nested: ErrorDetails | Literal[False] = False) -> str:
    """What an option allows, as the end of a sentence ("must be positive"); empty if its type says all.

    Args:
        field: of the option.
        nested: an error about one value of a list of them, which then says what is allowed of each.
    """
    marks = _marks(field.annotation, field.metadata)
    if nested:
        broken = nested.get("ctx", {})
        marks = [KINDS[name](broken[name]) for name in KINDS if name in broken] or marks
    for mark in marks:
        if isinstance(mark, Says):
            return mark.words
    if choices := _choices(field.annotation):
        null = NoneType in get_args(field.annotation)
        words = choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
        return f"must be {words}{' or null' if null else ''}"
    return _range(marks)


def _range(marks: list[Any]) -> str:
    """Bounds in words."""
    over = next((mark.gt for mark in marks if isinstance(mark, Gt)), None)
    least = next((mark.ge for mark in marks if isinstance(mark, Ge)), None) if over is None else None
    below = next((mark.lt for mark in marks if isinstance(mark, Lt)), None)
    most = next((mark.le for mark in marks if isinstance(mark, Le)), None)
    finite = any(isinstance(mark, AllowInfNan) for mark in marks)
    low, high = (least if over is None else over), (most if below is None else below)
    if isinstance(low, float) and isinstance(high, float) and ((over is None) == (below is None)):
        return f"must lie between {low:g} and {high:g}"
    words = []
    if over is not None:
        words.append("positive" if over == 0 else f"above {over:g}")
    if finite:
        words.insert(len(words) if over is not None else 0, "finite")
    if least is not None:
        words.append(f"at least {least:g}")
    if below is not None:
        words.append(f"below {below:g}")
    if most is not None:
        words.append(f"at most {most:g}")
    return f"must be {' and '.join(words)}" if words else ""


def type_name(annotation: Any) -> str:
    """A type as one writes it, without bounds; choices are texts."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(parts[0])
    if origin in {Union, UnionType}:
        return " | ".join(dict.fromkeys(type_name(part) for part in parts))
    if origin is Literal:
        return "str"
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if part is Ellipsis else type_name(part) for part in parts)}]"
    return {NoneType: "None", Any: "any"}.get(annotation) or str(annotation.__name__)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The class of an option that holds options itself, else None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _section_of_items(annotation: Any) -> type[BaseModel] | None:
    """The class of the items of a list of options, else None."""
    return section_of(get_args(annotation)[0]) if get_origin(annotation) is list else None


def _place(kind: type[BaseModel], path: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None, list[str]]:
    """Where an error is: its section, its field (None: the section itself), and the names on the way."""
    names: list[str] = []
    parts = list(path)
    while parts and (field := kind.model_fields.get(str(parts[0]))) is not None:
        names.append(str(parts.pop(0)))
        inside = section_of(field.annotation)
        if inside is None and parts and isinstance(parts[0], int):
            inside = _section_of_items(field.annotation)
            names += [] if inside is None else [str(parts.pop(0))]
        if inside is None:
            return kind, field, names
        kind = inside
    return kind, None, names


def _unknown(kind: type[BaseModel], section: type[BaseModel], names: list[str]) -> str:
    """About an option that a section has not, with the nearest that it has, or that another one has."""
    known, elsewhere = list(section.model_fields), _by_last_name(kind)
    hint = f"there are {', '.join(known)}"
    if near := difflib.get_close_matches(names[-1], known, n=1):
        hint = f"did you mean {near[0]}?"
    elif near := difflib.get_close_matches(names[-1], elsewhere, n=1, cutoff=CLOSE):
        hint = f"did you mean {elsewhere[near[0]]}?"
    return f"unknown configuration key {'.'.join(names)}: {hint}"


def _by_last_name(kind: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """{last name of a key: the key} of all options; of several with one name the first."""
    found: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        inside, key = section_of(field.annotation), f"{prefix}{name}"
        found = {**({name: key} if inside is None else _by_last_name(inside, f"{key}.")), **found}
    return found


def _shown(entry: ErrorDetails, from_text: bool) -> str:
    """The value that an error is about; out of text, a float where the broken bound is one."""
    value, bound = entry["input"], entry.get("ctx", {}).get(BOUNDS.get(entry["type"], ""))
    if value is None:
        return "null"
    text = str(float(value)) if from_text and isinstance(bound, float) else str(value)
    return text if text.isprintable() else repr(text)


def _marks(annotation: Any, metadata: list[Any]) -> list[Any]:
    """All that is annotated to a type, or to its members but null."""
    found = [inner for mark in metadata for inner in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    if get_origin(annotation) is Annotated:
        base, *marks = get_args(annotation)
        return found + _marks(base, marks)
    if get_origin(annotation) in {Union, UnionType}:
        return found + [mark for part in get_args(annotation) for mark in _marks(part, [])]
    return found


def _choices(annotation: Any) -> list[str]:
    """The words of a type that is one of some words, or null."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) in {Union, UnionType}:
        others = [part for part in get_args(annotation) if part is not NoneType]
        return _choices(others[0]) if len(others) == 1 else []
    return []
