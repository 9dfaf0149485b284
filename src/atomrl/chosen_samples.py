"""`atomrl sample --best-of` and `--steer`: the best of several draws by a reward, without training."""

from __future__ import annotations

import argparse
from contextlib import closing
from functools import partial
from typing import Any

import torch

from atomrl.config import Config, load_config
from atomrl.core.protocols import Model
from atomrl.core.stages import total_reward
from atomrl.core.steering import Steered, SteeringConfig, steer
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import SamplePlan, ready
from atomrl.util.errors import UserError
from atomrl.util.progress import bar


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
    if not (options.best_of or options.steer):
        for given in (options.config_name, *options.overrides):
            if given:
                raise UserError(f"{given} says by which reward samples are chosen: give --best-of or --steer too")
    return max(int(options.best_of), int(options.steer), 1)


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
    for override in options.overrides:
        if not override.lstrip("+~").startswith("reward."):
            raise UserError(f"{override}: sampling reads keys of the section reward only")
    name = options.config_name or domain.demo
    config = load_config(name, options.overrides)
    if config.domain != domain.name:
        raise UserError(f"--config-name {name} is about {config.domain}, the backbone is of {domain.name}")
    return config
