"""Packages that only some users need: an import that lacks one says which extra brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from atomrl.util.errors import UserError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Guards imports of what the extra `name` installs.

        with extra("crystals"):
            import chgnet

    Raises:
        UserError: one of its packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if missing.partition(".")[0] == "atomrl":  # a mistake of ours, which no installation repairs
            raise
        raise UserError(
            f"this needs the package {missing}, which is not installed: pip install 'atomrl[{name}]'"
        ) from error
