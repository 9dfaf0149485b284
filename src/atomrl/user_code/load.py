"""A user's own code: found in a file or by its dotted path, without being part of the package."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from atomrl.user_code.calling import calling, located
from atomrl.user_code.given import handed, handed_object, is_object
from atomrl.util.errors import UserError
from atomrl.util.own_frames import own_frame

FORMS = "path/to/file.py:name or package.module.name"

_READ: dict[str, tuple[Path, int]] = {}
"""Modules that were read from files of the user's, by name: the file, and when it had been changed, in ns."""


def load_object(source: str) -> Any:
    """The class or function that a text names.

    Args:
        source: `path/to/file.py:name`, or a dotted path, with `:` or `.` before the name. A dotted path is also looked
            for in the current folder. A name that a program handed an object over by stands for that object.

    Raises:
        UserError: no such file, module or name, its code cannot be imported, or it is an object that was not handed
            over.
    """
    if source in handed() or is_object(source):
        return handed_object(source)
    place, _, name = source.rpartition(":") if ":" in source else source.rpartition(".")
    in_file = place.endswith(".py")
    dotted = all(part.isidentifier() for part in place.split("."))
    if not name.isidentifier() or not (in_file or dotted):
        raise UserError(f"code of your own is named {FORMS}; got {source!r}")
    module = _from_file(Path(place), source) if in_file else _from_path(place, source)
    if name not in vars(module):
        raise UserError(f"{place} holds no {name}; {_instead(module, name)}")
    return vars(module)[name]


def forget_changed_files() -> None:
    """Have files that were changed since they were read, or are gone, read anew when they are next named.

    For the beginning of a call: until its end a training goes on with the code that it began with.
    """
    for name, (path, read) in list(_READ.items()):
        if not path.is_file() or path.stat().st_mtime_ns != read:
            del _READ[name]
            sys.modules.pop(name, None)


def file_of(source: str) -> Path | None:
    """The file that holds what a text names; None for an object that was handed over, or a module without a file.

    Args:
        source: as of `load_object`, which imports it.

    Raises:
        UserError: as `load_object`.
    """
    if source in handed() or is_object(source):
        return None
    load_object(source)
    place = source.rpartition(":" if ":" in source else ".")[0]
    # A built-in module has no file, and what a class is nested in is no module.
    name = place if place.endswith(".py") else getattr(sys.modules.get(place), "__file__", None)
    return None if name is None else Path(name)


def _instead(module: Any, name: str) -> str:
    """What a module holds that could have been meant: names like this one, else all its own classes and functions."""
    own = [  # a module may hold callables without __module__, as a partial
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    near = difflib.get_close_matches(name, own)
    return f"did you mean {' or '.join(near)}?" if near else f"it holds {', '.join(own) or 'no class or function'}"


def _from_file(path: Path, source: str) -> Any:
    """The module in a file; read once, however often it is named, see `forget_changed_files`."""
    if not path.is_file():
        raise UserError(f"no file {path} (from {Path.cwd()}); code of your own is named {FORMS}")
    name = f"_atomrl_user_{path.stem}_{abs(hash(path.resolve())):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    changed = path.stat().st_mtime_ns
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    with ExitStack() as failure:
        failure.callback(sys.modules.pop, name)  # half a module must not be found the next time
        with _importing(str(path), source):
            spec.loader.exec_module(module)
        failure.pop_all()
    _READ[name] = path.resolve(), changed
    return module


def _from_path(place: str, source: str) -> Any:
    """An importable module."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with _importing(place, source, module=place):
            return import_module(place)
    except ModuleNotFoundError as error:
        raise UserError(f"no module {error.name} for {source!r}; code of your own is named {FORMS}") from error
    finally:
        sys.path.remove(here)


@contextmanager
def _importing(place: str, source: str, module: str = "") -> Iterator[None]:
    """Around an import: what is wrong in one line; that `module` is not there stays a `ModuleNotFoundError`."""
    with calling(place, None, f"imported for {source}"):
        try:
            yield
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError)
            if missing and f"{module}.".startswith(f"{error.name}."):
                raise
            what = f"cannot be imported: {' '.join(str(error).split())}"
            if missing and error.name:
                what = f"imports {error.name}, {_why_missing(Path(place), error.name)}"
            raise located(UserError(f"{place} {what}"), own_frame(error)) from error


def _why_missing(place: Path, module: str) -> str:
    """Why the code in a file, or of a dotted path, finds no module, and what to do if it is a file beside it."""
    folder, name = place.parent.resolve(), module.partition(".")[0]
    if place.suffix == ".py" and ((folder / f"{name}.py").is_file() or (folder / name).is_dir()):
        return f"which lies beside it, where Python does not look: set PYTHONPATH={folder}"
    return "which is not installed"
