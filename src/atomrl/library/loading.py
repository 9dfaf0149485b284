"""`atomrl.load`: a model by whatever names it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from atomrl.checkpoints.stored import Stored, read_stored
from atomrl.config import Config, as_trained, with_overrides
from atomrl.config.naming import key_of, listed_words
from atomrl.config.outputs import EvaluationSection
from atomrl.config.switches import refuse_of_training, require_switched_on
from atomrl.core.protocols import Model
from atomrl.domains import domain_for, model_of
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import SamplePlan
from atomrl.library.run import Run
from atomrl.util.errors import UserError

DEFAULT_BACKBONE = "edm_qm9_small"
SAMPLED, EVALUATED, SEED = 10, 1000, EvaluationSection().seed
"""Samples that are drawn to be kept, and to be judged, and their seed, if the user does not say."""

SAID_BY_ARGUMENTS = {"model.backbone": "the model itself", "model.time_step": "time_step to atomrl.sample"}
"""Keys that say what an argument says."""

Source = str | Path | Run | Model
"""A shipped name, a folder, a run directory or a checkpoint; a run; or a model that is loaded already."""


@dataclass(frozen=True)
class Loaded:
    """A model with what it samples.

    Attributes:
        model: it.
        domain: of its samples.
        config: the documented defaults of the domain, with the sampler of its run, and what was overridden.
    """

    model: Model
    domain: Domain[Any, Any]
    config: Config


def load(source: Source, overrides: Sequence[str] = ()) -> Model:
    """Load a model: weights, sizes of its samples, what it is conditioned on.

    Examples:
        >>> model = atomrl.load("edm_qm9_small")
        >>> sum(parameter.numel() for parameter in model.policy().trainable().parameters()) > 0
        True

    Args:
        source: name of a shipped model (`atomrl list backbones`), a folder, a run directory for its latest checkpoint,
            a checkpoint, or a `Run`.
        overrides: `key=value` of the section `model`, e.g. `model.guidance_scale=3`.

    Returns:
        A `Backbone` of molecules or a `CrystalBackbone`; of a run whose policy was given as an object, a model around
        a copy of that. `policy()` is the torch module that samples.

    Raises:
        UserError: nothing there, damaged, no model of this package, or the run's policy was a Python object and is not
            given: `atomrl.load(atomrl.Run(folder, policy=p))`.
    """
    return loaded(source, overrides).model


def loaded(source: Source, overrides: Sequence[str] = ()) -> Loaded:
    """What `load` loads, and what goes with it; arguments and errors as of `load`."""
    overrides = listed_words(overrides)
    if isinstance(source, Run):
        with source.given.handed_over():
            return from_stored(read_stored(str(source.folder)), overrides)
    if isinstance(source, str | Path):
        return from_stored(read_stored(str(source)), overrides)
    if overrides:
        raise UserError(
            f"{source.origin} is loaded already: give {', '.join(overrides)} to atomrl.load, which loads it"
        )
    domain = domain_for(Stored(source.card, {}, source.origin, trained=False))
    return Loaded(source, domain, as_trained(domain.name, {}))


def from_stored(stored: Stored, overrides: Sequence[str] = ()) -> Loaded:
    """A model that was read, which samples as its run did, but for what is overridden.

    Raises:
        UserError: as `load`.
    """
    domain = domain_for(stored)
    _require_of_model(overrides)
    config = with_overrides(as_trained(domain.name, stored.card), overrides)
    require_switched_on(config, overrides)
    return Loaded(model_of(stored, config), domain, config)


def _require_of_model(overrides: Sequence[str]) -> None:
    """Raise UserError for words that say nothing about how a model samples."""
    for override in overrides:
        key = key_of(override)
        if not key.startswith("model."):
            raise UserError(f"{override}: a model that is loaded reads keys of the section model only")
        if key in SAID_BY_ARGUMENTS:
            raise UserError(f"{override}: give {SAID_BY_ARGUMENTS[key]}")
    refuse_of_training(overrides, "sampling")


def sample_plan(
    domain: Domain[Any, Any], count: int | None, time_step: int | None, seed: int | None, usual: int
) -> SamplePlan:
    """Which samples somebody asks for; None each: as documented, `usual` samples.

    Raises:
        UserError: a number that means nothing.
    """
    count = usual if count is None else count
    time_step = domain.time_step if time_step is None else time_step
    for name, number in (("-n", count), ("--time-step", time_step), ("--seed", seed)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise UserError(f"{name} {number!r}: must be a whole number, of the type int")
    for name, number in (("-n", count), ("--time-step", time_step)):
        if number < 1:
            raise UserError(f"{name} {number}: must be at least 1")
    return SamplePlan(int(count), int(time_step), SEED if seed is None else int(seed))


def asking(plan: SamplePlan, sizes: Sequence[int], context: Mapping[str, str | float]) -> SamplePlan:
    """The same for samples of some sizes, and what a conditional model is asked for.

    Raises:
        UserError: a size twice or below 1, or no list of whole numbers.
    """
    if not isinstance(sizes, Collection) or not all(isinstance(size, Integral) for size in sizes):
        raise UserError(f"sizes={sizes!r}: give a list of numbers of atoms, e.g. [9, 12]")
    if min(sizes, default=1) < 1 or len(set(sizes)) < len(sizes):
        raise UserError(f"--sizes {' '.join(map(str, sizes))}: numbers of atoms, 1 or more, each once")
    return replace(plan, sizes=tuple(map(int, sizes)), asked=dict(context))
