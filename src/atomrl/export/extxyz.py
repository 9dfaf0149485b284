"""Extended XYZ whose texts are read back as the texts that were written."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping

import ase.io
from ase import Atoms
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

JSON = "_JSON "
"""How ASE marks a value that is JSON."""

Info = Mapping[str, str | float | bool]


def readable_info(info: Info) -> dict[str, str | float | bool]:
    """What to put into `Atoms.info`, so that ASE reads it back as it is here.

    ASE takes a text for a number, a truth value or an array wherever it looks like one: `NaN`, sodium nitride, for a
    number that is none, the id `00012` for 12, `T` for True; and it drops backslashes, which SMILES have. Such a text
    is written as JSON, which ASE reads, all others as they are.
    """
    return {
        name: value if not isinstance(value, str) or _kept(value) else JSON + json.dumps(value).replace("\\", "\\\\")
        for name, value in info.items()
    }


def text_of_images(images: Iterable[Atoms]) -> str:
    """Structures one after another."""
    buffer = io.StringIO()
    ase.io.write(buffer, list(images), format="extxyz")
    return buffer.getvalue()


def _kept(text: str) -> bool:
    """Whether ASE reads a text as it is."""
    if not text.isprintable():  # a line break would end the header
        return False
    found = key_val_str_to_dict(key_val_dict_to_str({"text": text, "next": 1}))  # type: ignore[no-untyped-call]
    return isinstance(found.get("text"), str) and found["text"] == text and "next" in found
