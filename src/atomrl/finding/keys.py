"""`atomrl keys`: what can be set, out of the options themselves."""

from __future__ import annotations

import difflib
import shutil
import textwrap
from collections.abc import Iterable

from atomrl.finding.key_table import PARTS, Key, keys_of
from atomrl.util.errors import UserError

MOLECULES, CRYSTALS = "molecules", "crystals"

OF = {title.strip("`").replace("`", "").split()[-1]: kind for title, kind in PARTS.items()}
"""{`molecules`, `crystals` of `atomrl train`, or what `atomrl pretrain` takes: the options}."""


def keys_command(prefix: str, of: str | None) -> None:
    """Print the keys that begin with a prefix, and what is to be known of each.

    Args:
        prefix: of whole dotted keys; empty: all.
        of: whose; None: those of `atomrl train` on molecules, then what differs on crystals.

    Raises:
        UserError: nothing has such keys.
    """
    print(keys_text(prefix, of), end="")


def keys_text(prefix: str, of: str | None = None) -> str:
    """What `atomrl keys` prints; arguments and errors as of `keys_command`."""
    if of is not None and of not in OF:
        raise UserError(f"--of {of}: must be one of {', '.join(OF)}")
    if of is not None:
        found = _beginning(prefix, keys_of(OF[of]()))
        if not found:
            raise _no_such(prefix, [of])
        return _shown(found)
    common, other = (_beginning(prefix, keys_of(OF[domain]())) for domain in (MOLECULES, CRYSTALS))
    differing = [key for key in other if key not in common]
    if not common and not other:
        raise _no_such(prefix, [MOLECULES, CRYSTALS])
    if not common:
        return f"crystals only:\n\n{_shown(other)}"
    alone = [] if not differing else [f"crystals, where they differ:\n\n{_shown(differing)}"]
    return "\n".join([_shown(common), *alone])


def _beginning(prefix: str, keys: Iterable[Key]) -> list[Key]:
    """Keys that begin so; a section may be named without its dot."""
    return [key for key in keys if key.name.startswith(prefix)]


def _no_such(prefix: str, parts: list[str]) -> UserError:
    """About a prefix that no key has, with the nearest key."""
    known = [key.name for part in parts for key in keys_of(OF[part]())]
    lasts = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(prefix, [*known, *lasts], n=1, cutoff=0.5)
    hint = f"did you mean {lasts.get(near[0], near[0])}?" if near else "atomrl keys lists all"
    return UserError(f"no key of {' or '.join(parts)} begins with {prefix}: {hint}")


def _shown(keys: list[Key]) -> str:
    """A line of columns for each key, and its meaning below."""
    rows = [(key.name, key.type, key.default, key.unit) for key in keys]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:2]
    width = shutil.get_terminal_size().columns
    lines = []
    for key, (name, kind, default, unit) in zip(keys, rows, strict=True):
        value = f"{default} {unit}".rstrip()
        lines.append(f"{name:{widths[0]}}  {kind:{widths[1]}}  {value}")
        said = f"{key.meaning} Allowed: {key.allowed}." if key.allowed else key.meaning
        lines += textwrap.wrap(said, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return "".join(f"{line}\n" for line in lines)
