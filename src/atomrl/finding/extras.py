"""The package's extras, and which of them are installed."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

DEVELOPMENT = "dev"
"""The extra of those who change the package."""

REQUIREMENT = re.compile(r"""(?P<package>[\w.-]+).*;\s*extra\s*==\s*["'](?P<extra>[\w-]+)["']""")


@cache
def packages_of_extras() -> dict[str, tuple[str, ...]]:
    """{extra: packages that it brings}, as the installed package declares them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in requires("atomrl") or []:
        if (match := REQUIREMENT.match(line)) and match["extra"] != DEVELOPMENT and match["package"] != "atomrl":
            found[match["extra"]].append(match["package"])
    return {extra: tuple(packages) for extra, packages in sorted(found.items())}


def missing_packages(extra: str) -> list[str]:
    """Packages of an extra that are not installed."""
    return [package for package in packages_of_extras()[extra] if version_of(package) is None]


def version_of(package: str) -> str | None:
    """Of an installed package; None: it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def how_to_install(extra: str) -> str:
    """The command that brings an extra."""
    return f"pip install 'atomrl[{extra}]'"
