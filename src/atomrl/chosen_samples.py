"""`atomrl sample --best-of` and `--steer`: the best of several draws by a reward, without training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch

from atomrl.config import Config, load_config
from atomrl.config.naming import key_of
from atomrl.core.protocols import Model
from atomrl.core.stages import total_reward
from atomrl.core.steering import Steered, SteeringConfig, steer
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import SamplePlan, ready
from atomrl.util.errors import UserError
from atomrl.util.progress import bar

SAID_BY_OPTIONS = {"model.backbone": "--backbone", "model.time_step": "--time-step"}
"""Keys that `atomrl sample` has an option for."""


def asked_particles(options: argparse.Namespace) -> int:
    """How many samples are drawn for each that is kept; 1 if nothing is chosen.

    Raises:
        UserError: a number that means nothing, both ways at once, or a reward for a choice that is not made.
    """
    ways = {"--best-of": options.best_of, "--steer": options.steer, "--reject": options.reject}
    for name, number in ways.items():
        require_number_of_draws(name, number, "to keep each sample")
    asked = [name for name, number in ways.items() if number]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are different ways to choose: give one")
    _, about_reward = sections_of(options.overrides)
    if not (options.best_of or options.steer):
        for given in (options.config_name, *about_reward):
            if given:
                raise UserError(f"{given} says by which reward samples are chosen: give --best-of or --steer too")
    return max(int(options.best_of), int(options.steer), 1)


def sections_of(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides about how the model walks, and those about the reward that chooses.

    Raises:
        UserError: one is of another section, or about what options of the command say.
    """
    about: dict[str, list[str]] = {"model": [], "reward": []}
    for override in overrides:
        key = key_of(override)
        section = key.partition(".")[0]
        if section not in about:
            raise UserError(f"{override}: sampling reads keys of the sections model and reward only")
        if key in SAID_BY_OPTIONS:
            raise UserError(f"{override}: give {SAID_BY_OPTIONS[key]}")
        about[section].append(override)
    return about["model"], about["reward"]


def require_number_of_draws(name: str, number: int, without: str) -> None:
    """Of which one is kept.

    Raises:
        UserError: it means nothing.
    """
    if number < 0 or number == 1:
        raise UserError(f"{name} {number}: must be at least 2; 0 or nothing {without}")


def choose(
    model: Model, domain: Domain[Any, Any], options: argparse.Namespace, plan: SamplePlan, device: torch.device
) -> Steered:
    """The best of each N draws, or of N particles that are resampled on the way.

    Raises:
        UserError: the configuration is of another domain, or its reward cannot be built.
    """
    count = asked_particles(options)
    config = _config(domain, options)
    policy, prompts = ready(model, plan, count, device)
    places = SteeringConfig().places if options.steer else 0
    steering = SteeringConfig(plan.time_step, max(count, plan.micro_batch_size), places)
    with (
        closing(domain.reward(config, model)) as reward,
        bar(range(len(prompts)), "sample", total=len(prompts)) as progress,
    ):
        score = partial(total_reward, reward, domain.stages(config, reward))
        return steer(policy, prompts, steering, score, progress.update)


def _config(domain: Domain[Any, Any], options: argparse.Namespace) -> Config:
    """The configuration whose reward chooses."""
    name = options.config_name or domain.demo
    _, about_reward = sections_of(options.overrides)
    config = load_config(name, about_reward)
    if config.domain != domain.name:
        raise UserError(f"--config-name {name} is about {config.domain}, the backbone is of {domain.name}")
    return config
