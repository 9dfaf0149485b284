"""Molecules and crystals: each a file with a `SPEC`, imported when it is asked for, with its extra."""

from __future__ import annotations

from functools import cache
from typing import Any

from atomrl.checkpoints.given_policy import CARD_ENTRY, DOMAIN, GivenModel, filled, given_model
from atomrl.checkpoints.stored import Stored, read_stored
from atomrl.config import Config
from atomrl.core.protocols import Model
from atomrl.domains.base import Domain
from atomrl.user_code.given import is_object
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
    if CARD_ENTRY in stored.card:
        return domain_named(str(stored.card.get(DOMAIN)))
    for name in reversed(registered_names("atomrl.domains")):  # molecules first: crystals need an extra
        if domain_named(name).card_entry in stored.card:
            return domain_named(name)
    known = " or ".join(registered_names("atomrl.domains"))
    raise UserError(f"{stored.origin} is not a model of {known}: its card has the entries {', '.join(stored.card)}")


@cache
def domain_named(name: str) -> Domain[Any, Any]:
    """A domain by its name, imported now.

    Raises:
        UserError: there is none of this name.
    """
    domain: Domain[Any, Any] = registered("atomrl.domains", name, "domain")()
    return domain


def base_model(config: Config) -> Model:
    """The model that a run starts from: `model.backbone` names it, or an object that was handed over.

    Raises:
        UserError: it cannot be loaded, is of another domain, or was not handed over.
    """
    name, domain = config.model.backbone, domain_of(config)
    if is_object(name):
        model: Model = domain.adopt(given_model(name, domain.name), config)
        return model
    return model_of(read_stored(name), config)


def model_of(stored: Stored, config: Config) -> Model:
    """A stored model, which samples as a configuration says; of a policy that was given, its weights in that policy.

    Raises:
        UserError: as `Domain.load`, or the policy was not handed over.
    """
    domain = domain_of(config)
    if CARD_ENTRY not in stored.card:
        loaded: Model = domain.load(stored, config)
        return loaded
    model = given_model(str(stored.card[CARD_ENTRY]), domain.name)
    if not isinstance(model, GivenModel):
        raise UserError(f"{stored.origin} is of a policy, but a whole model was given: give the policy")
    adopted: Model = domain.adopt(filled(model, stored), config)
    return adopted
