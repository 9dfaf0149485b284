"""Molecules and crystals: each a file with a `SPEC`, imported when it is asked for, with its extra."""

from __future__ import annotations

from functools import cache
from typing import Any

from atomrl.checkpoints.stored import Stored
from atomrl.config import Config
from atomrl.domains.base import Domain
from atomrl.util.errors import UserError
from atomrl.util.registry import registered, registered_names


def domain_of(config: Config) -> Domain[Any, Any]:
    """The domain of a run."""
    return domain_named(config.domain)


def domain_for(stored: Stored) -> Domain[Any, Any]:
    """The domain of a model on disk.

    Raises:
        UserError: it is none that this version knows.
    """
    for name in reversed(registered_names("atomrl.domains")):  # molecules first: crystals need an extra
        if domain_named(name).card_entry in stored.card:
            return domain_named(name)
    known = " or ".join(registered_names("atomrl.domains"))
    raise UserError(f"{stored.origin} is no model of {known}: its card has the entries {', '.join(stored.card)}")


@cache
def domain_named(name: str) -> Domain[Any, Any]:
    """A domain by its name, imported now.

    Raises:
        UserError: there is none of this name.
    """
    domain: Domain[Any, Any] = registered("atomrl.domains", name, "domain")()
    return domain
