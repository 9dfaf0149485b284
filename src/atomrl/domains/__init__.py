"""Molecules and crystals. The only place that lists them; a domain is imported when it is asked for, with its extra."""

from __future__ import annotations

from functools import cache
from typing import Any

from atomrl.checkpoints.stored import Stored
from atomrl.config import Config
from atomrl.domains.base import Domain
from atomrl.util.errors import UserError

CARD_ENTRY = {"backbone": "molecules", "denoiser": "crystals"}
"""What the card of a domain's model has, and no other's."""


def domain_of(config: Config) -> Domain[Any, Any]:
    """The domain of a run."""
    return _domain(config.domain)


def domain_for(stored: Stored) -> Domain[Any, Any]:
    """The domain of a model on disk.

    Raises:
        UserError: it is none that this version knows.
    """
    for entry, name in CARD_ENTRY.items():
        if entry in stored.card:
            return _domain(name)
    known = " or ".join(CARD_ENTRY.values())
    raise UserError(f"{stored.origin} is no model of {known}: its card has the entries {', '.join(stored.card)}")


@cache
def _domain(name: str) -> Domain[Any, Any]:
    """A domain, imported now."""
    if name == "molecules":
        from atomrl.domains.molecules import MoleculeDomain  # noqa: PLC0415

        return MoleculeDomain()
    from atomrl.domains.crystals import CrystalDomain  # noqa: PLC0415 - needs an extra

    return CrystalDomain()
