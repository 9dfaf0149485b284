"""A policy that a Python program gave, as a model: it has no stored form, so that only its weights go into a run."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from atomrl.checkpoints.folder import fill, sizes_entry
from atomrl.checkpoints.stored import AVERAGED, Stored
from atomrl.core.protocols import DiffusionPolicy, Model
from atomrl.policies.own import asked_policy
from atomrl.user_code.calling import calling
from atomrl.user_code.given import MARK, handed_object
from atomrl.util.errors import UserError

M = TypeVar("M", bound=Model)

CARD_ENTRY, DOMAIN = "policy", "domain"
"""Entries of the card of a run's checkpoint whose policy was given: its name, and what it samples."""


@dataclass(frozen=True)
class GivenModel:
    """A policy of a program with what a run needs beside it; implements `protocols.Model`.

    Attributes:
        name: that it was handed over by.
        given: the policy; a torch module.
        sizes: how many atoms its samples have, {atoms: how often}.
        domain: what it samples.
    """

    name: str
    given: DiffusionPolicy
    sizes: Mapping[int, int]
    domain: str

    @property
    def conditioning(self) -> None:
        """None: prompts ask nothing of it."""

    @property
    def origin(self) -> str:
        """For logs."""
        return f"{self.name.removeprefix(MARK)}, given in Python"

    @property
    def card(self) -> dict[str, Any]:
        """What a checkpoint says of it: by which name it must be given again."""
        return {CARD_ENTRY: self.name, DOMAIN: self.domain, "sizes": sizes_entry(self.sizes), "origin": self.origin}

    def policy(self) -> DiffusionPolicy:
        """The policy itself."""
        return self.given


def given_model(name: str, domain: str) -> Any:
    """A copy of the policy, or model, that was handed over by this name: a training moves the copy.

    Returns:
        A `Model`: a `GivenModel` around a policy, or a model as it was given.

    Raises:
        UserError: nothing was handed over, it is no torch module, or says no sizes.
    """
    found, said = handed_object(name), name.removeprefix(MARK)
    if not isinstance(found, DiffusionPolicy):
        return deepcopy(found)
    if not isinstance(found, nn.Module):
        raise UserError(f"policy={said} must be a torch.nn.Module, whose weights are saved with the run")
    sizes = found.sizes if hasattr(found, "sizes") else None
    if not isinstance(sizes, Mapping) or not sizes:
        raise UserError(
            f"policy={said} does not say how many atoms its samples have: give it an attribute sizes, "
            "{atoms: how often}, e.g. policy.sizes = {5: 1, 6: 2}"
        )
    with calling(f"the policy {said}", found, "copied, so that yours stays as it is"):
        return GivenModel(name, deepcopy(found), dict(sizes), domain)


def filled(model: GivenModel, stored: Stored) -> GivenModel:
    """A copy of a policy with the averaged weights of a run's checkpoint in what is trained of it.

    Raises:
        UserError: they are of another policy.
    """
    trained = deepcopy(model.given)
    fill(asked_policy(trained).trainable(), stored.part("", AVERAGED), stored.origin)
    return GivenModel(model.name, trained, model.sizes, model.domain)


def stored_form(model: M | GivenModel, kind: type[M]) -> M:
    """A model that can be written as a folder.

    Raises:
        UserError: it is a policy that a program gave.
    """
    if isinstance(model, kind):
        return model
    raise UserError(f"{model.origin}: a policy that was given has no stored form, and cannot be written as a folder")
