"""`atomrl list`: what a configuration can name, a line each, and whether its extra is installed. Imports none of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from atomrl.checkpoints.shipped import BACKBONES, located
from atomrl.config.naming import DEFAULT
from atomrl.finding.extras import how_to_install, missing_packages, packages_of_extras
from atomrl.user_code.trust import BUILT_IN
from atomrl.util.errors import UserError
from atomrl.util.registry import registered_names

PACKAGE = Path(str(files("atomrl")))

MARKS = {"molecules": "SPEC", "crystals": "CRYSTAL_SPEC"}
"""What a file of a force field assigns that is one of them."""

GUARD = re.compile(r"""\bextra\(["'](\w+)["']\)""")
"""How a file says that what it imports comes with an extra."""


@dataclass(frozen=True)
class Entry:
    """One thing that can be named.

    Attributes:
        name: as one types it.
        said: what it is, in one line.
        extra: that it needs; None: it comes with the package.
    """

    name: str
    said: str
    extra: str | None = None


def list_command(kinds: Sequence[str]) -> None:
    """Print what there is.

    Args:
        kinds: keys of `KINDS`; none: all.

    Raises:
        UserError: there is no such kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"{kind}: there is no such list; there are {', '.join(KINDS)}")
    print("\n".join(_block(kind) for kind in kinds or KINDS), end="")


def configurations() -> list[Entry]:
    """YAMLs of the package, by how `atomrl train` names them."""
    folder = PACKAGE / "conf"
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        name, text = str(path.relative_to(folder).with_suffix("")), path.read_text("utf-8")
        group, _, experiment = name.partition("/")
        typed = f"experiment={experiment}" if experiment else f"--config-name {group}"
        comment = " ".join(line.lstrip("# ") for line in _first_comment(text.splitlines()))
        domain = "crystals" if re.search(r"^domain: crystals$", text, re.MULTILINE) else None
        found.append(Entry(f"{typed} (the default)" if name == DEFAULT else typed, _sentence(comment), domain))
    return found


def backbones() -> list[Entry]:
    """Models that ship."""
    return [
        Entry(
            name,
            _sentence((located(name) / "README.md").read_text("utf-8").split("\n\n")[1]),
            "crystals" if name.startswith("crystal") else None,
        )
        for name in BACKBONES
    ]


def rewards() -> list[Entry]:
    """Components of the package, for `reward.components`, and the two rewards without any."""
    found = []
    for dotted in sorted(BUILT_IN):
        module, _, name = dotted.rpartition(".")
        found.append(Entry(dotted, _said_of_class(_source(module), name)))
    typed = [("xtb", "rewards.force_energy"), ("dummy", "rewards.dummy"), ("reinforce", "rewards.reinforce")]
    found += [
        Entry(f"reward.type={name}", _said(_source(f"atomrl.{module}")), "crystals" if name == "reinforce" else None)
        for name, module in typed
    ]
    return found


def force_fields() -> list[Entry]:
    """By the names of `reward.force_field`, with what they are of."""
    folder = "atomrl.force_fields"
    known = {what: registered_names(folder, mark) for what, mark in MARKS.items()}
    found = []
    for name in sorted({name for names in known.values() for name in names}):
        of = " and ".join(what for what, names in known.items() if name in names)
        source = _source(f"{folder}.{name}")
        guarded = GUARD.search(source)
        extra = guarded[1] if guarded else name if name in packages_of_extras() else None
        found.append(Entry(name, f"{of}: {_said(source)}", extra))
    return found


def objectives() -> list[Entry]:
    """By the names of `train.objective`."""
    folder = "atomrl.core.objectives"
    return [Entry(name, _said(_source(f"{folder}.{name}"))) for name in registered_names(folder)]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "configurations": configurations,
    "backbones": backbones,
    "rewards": rewards,
    "force-fields": force_fields,
    "objectives": objectives,
}
"""What can be listed."""

HOW = {
    "configurations": "atomrl train NAME",
    "backbones": "model.backbone=NAME, --backbone NAME, --base NAME; paths and hub:user/name stand there too",
    "rewards": "reward.components=[{_target_: NAME}], or as it stands",
    "force-fields": "reward.force_field=NAME",
    "objectives": "train.objective=NAME",
}
"""How each is named."""


def _block(kind: str) -> str:
    """A heading, and a line for each entry."""
    entries = KINDS[kind]()
    width = max(len(entry.name) for entry in entries)
    lines = [f"{kind}: {HOW[kind]}", *(f"  {entry.name:{width}}  {entry.said}{_needs(entry)}" for entry in entries)]
    return "".join(f"{line}\n" for line in lines)


def _needs(entry: Entry) -> str:
    """What is to be known of an entry's extra."""
    if entry.extra is None:
        return ""
    state = f"not installed, {how_to_install(entry.extra)}" if missing_packages(entry.extra) else "installed"
    return f" [extra {entry.extra}: {state}]"


def _first_comment(lines: Sequence[str]) -> list[str]:
    """Lines of the comment that a YAML begins with, but a directive of Hydra's."""
    found: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            found.append(line)
    return found


def _source(module: str) -> str:
    """The text of a module, which is not imported."""
    return (PACKAGE.parent / Path(*module.split("."))).with_suffix(".py").read_text("utf-8")


def _said(source: str) -> str:
    """The first sentence about a module."""
    return _sentence(ast.get_docstring(ast.parse(source)) or "")


def _said_of_class(source: str, name: str) -> str:
    """The first sentence about a class of a module."""
    [found] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    return _sentence(ast.get_docstring(found) or "")


def _sentence(text: str) -> str:
    """The first sentence of a text, as one line, without its full stop; a text ends with its first paragraph."""
    words = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<!e\.g)\.(?= [A-Za-z]|$)", words, maxsplit=1)[0]
