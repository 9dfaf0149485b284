"""A user's own code: found in a file or by its dotted path, without being part of the package."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from atomrl.errors import UserError

FORMS = "path/to/file.py:name or package.module.name"


def load_object(source: str) -> Any:
    """The class or function that a text names.

    Args:
        source: `path/to/file.py:name`, or a dotted path, with `:` or `.` before the name. A dotted path is also looked
            for in the current folder.

    Raises:
        UserError: no such file, module or name.
    """
    place, _, name = source.rpartition(":") if ":" in source else source.rpartition(".")
    if not place or not name.isidentifier():
        raise UserError(f"a reward of your own is named {FORMS}; got {source!r}")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_path(place, source)
    if name not in vars(module):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"{place} holds no {name}; it holds {', '.join(public) or 'nothing'}")
    return vars(module)[name]


def _from_file(path: Path) -> Any:
    """The module in a file; read once, however often it is named."""
    if not path.is_file():
        raise UserError(f"no file {path} (from {Path.cwd()}); a reward of your own is named {FORMS}")
    name = f"_atomrl_user_{path.stem}_{abs(hash(path.resolve())):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    with ExitStack() as failure:
        failure.callback(sys.modules.pop, name)  # half a module must not be found the next time
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            raise UserError(f"{path}, line {error.lineno}: {error.msg}") from error
        failure.pop_all()
    return module


def _from_path(place: str, source: str) -> Any:
    """An importable module."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise UserError(f"no module {error.name} for {source!r}; a reward of your own is named {FORMS}") from error
        raise UserError(f"{place} imports {error.name}, which is not installed") from error
    finally:
        sys.path.remove(here)
