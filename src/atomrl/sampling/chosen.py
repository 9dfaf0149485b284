"""`atomrl sample --best-of` and `--steer`: the best of several draws by a reward, without training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from atomrl.config import Config, load_config
from atomrl.config.naming import key_of
from atomrl.config.switches import refuse_of_training
from atomrl.core.prompts import cut_into_buckets, several
from atomrl.core.protocols import Model
from atomrl.core.records import Prompts
from atomrl.core.stages import total_reward
from atomrl.core.steering import SteeringConfig, steer
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import CPU
from atomrl.sampling.sample_file import Counts, Drawing, Part, Wanted
from atomrl.sampling.steering_options import SteeringOptions, resampling
from atomrl.training.changed_settings import AROUND
from atomrl.user_code.given import handed, is_object
from atomrl.user_code.load import file_of
from atomrl.user_code.trust import NAMES, foreign_code
from atomrl.util.errors import UserError
from atomrl.util.files import content_hash, file_that_is_read
from atomrl.util.growing_file import Settings
from atomrl.util.trees import dotted, named_texts

SAID_BY_OPTIONS = {
    "model.backbone": "--backbone",
    "model.time_step": "--time-step",
    "seed": "--seed",
    "device": "--device",
}
"""Keys that `atomrl sample` has an option for."""

SCORINGS, CALLS, UNSCORED = "scorings", "network calls", "unscored"


def asked_particles(options: argparse.Namespace) -> int:
    """How many samples are drawn for each that is kept; 1 if nothing is chosen.

    Raises:
        UserError: a number that means nothing, both ways at once, or what says how to make a choice that is not made.
    """
    ways = {"--best-of": options.best_of, "--steer": options.steer, "--reject": options.reject}
    for name, number in ways.items():
        require_number_of_draws(name, number, "to keep each sample")
    asked_steering(options)
    asked = [name for name, number in ways.items() if number]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are different ways to choose: give one")
    _, about_reward = sections_of(options.overrides)
    if not (options.best_of or options.steer):
        for given in (options.config_name, *about_reward):
            if given:
                raise UserError(f"{given} says by which reward samples are chosen: give --best-of or --steer too")
    return max(int(options.best_of), int(options.steer), 1)


def asked_steering(options: argparse.Namespace) -> SteeringOptions:
    """How samples are steered.

    Raises:
        UserError: as `SteeringOptions`.
    """
    return SteeringOptions(options.steer, options.steer_temperature, options.steer_places)


def sections_of(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides about how the model walks, and those about the reward that chooses.

    Raises:
        UserError: one is of another section, about what options of the command say, or read by a training alone.
    """
    about: dict[str, list[str]] = {"model": [], "reward": []}
    for override in overrides:
        key = key_of(override)
        section = key.partition(".")[0]
        if key in SAID_BY_OPTIONS:
            raise UserError(f"{override}: give {SAID_BY_OPTIONS[key]}")
        if section not in about:
            raise UserError(f"{override}: sampling reads keys of the sections model and reward only")
        refuse_of_training([override], "sampling")
        about[section].append(override)
    return about["model"], about["reward"]


def require_number_of_draws(name: str, number: int, without: str) -> None:
    """Of which one is kept.

    Raises:
        UserError: it means nothing.
    """
    if number < 0 or number == 1:
        raise UserError(f"{name} {number}: must be at least 2; 0 or nothing {without}")


def require_total(config: Config) -> None:
    """Refuse a reward by which no sample can be chosen, before anything is drawn.

    Raises:
        UserError: it is the dummy.
    """
    if not config.reward.has_total:
        raise UserError("reward.type=dummy has no total, by which samples could be chosen: give another reward")


class Choosing(Drawing):
    """The best of each N draws, or of N particles that are resampled on the way, by the reward of a configuration.

    A chunk is a bucket of the rollout: a reward that compares samples with each other compares those of a bucket.

    Args:
        wanted: the samples.
        model: that draws them.
        domain: of these.
        options: of the command.

    Raises:
        UserError: the configuration is of another domain, its reward cannot be built, or as `SteeringOptions.config`.
    """

    def __init__(self, wanted: Wanted, model: Model, domain: Domain[Any, Any], options: argparse.Namespace) -> None:
        self._each = asked_particles(options)
        name = options.config_name or domain.demo
        config = _config(domain, name, options.overrides).changed(device=options.device)
        require_total(config)
        at_once = max(self._each, wanted.plan.micro_batch_size)
        if options.steer:
            self._steering = asked_steering(options).config(wanted.plan.time_step, at_once)
            way: Settings = {"choice": f"--steer {self._each}", **resampling(self._steering)}
        else:
            self._steering = SteeringConfig(wanted.plan.time_step, at_once, places=0)
            way = {"choice": f"--best-of {self._each}"}
        chunks = cut_into_buckets(wanted.prompts, at_once // self._each)
        super().__init__(wanted, chunks, {**way, "configuration": name, **about_reward(config)})
        self._reward = domain.reward(config, model)
        self._score = partial(total_reward, self._reward, domain.stages(config, self._reward))

    def draw(self, chunk: Prompts) -> Part:
        """See `Drawing`."""
        found = steer(self.wanted.policy, several(chunk, self._each), self._steering, self._score)
        unscored = int((~found.scores.isfinite()).sum())
        counts = {SCORINGS: found.scorings, CALLS: found.network_calls, UNSCORED: unscored}
        return Part(found.structures.to(CPU), chunk.group_ids.sort().values, counts)

    def cost(self, counts: Counts) -> str:
        """Scorings, and calls of the network; and how many samples were chosen by none."""
        unscored = counts[UNSCORED]
        never = f"; {unscored:,} of them by no score, which all their candidates lack" if unscored else ""
        return f" after {counts[SCORINGS]:,} scorings and {counts[CALLS]:,} calls of the network{never}"

    def close(self) -> None:
        """Close the reward."""
        self._reward.close()


def about_reward(config: Config) -> Settings:
    """All that a reward may read of a configuration, but for what says only where it is computed.

    So that files are known by what is in them, there is a hash of each that is named: the user's code, a model, a hull.
    """
    values = config.model_dump(mode="json", include={"reward", "dataloader"})
    read = {key: value for key, value in dotted(values) if key not in AROUND}
    named = named_texts(values["reward"])
    files = {text: file for name, text in named if (file := file_that_is_read(name, text)) is not None}
    for name in foreign_code(config.reward.code, NAMES):
        with suppress(UserError):  # an option may be called `source`; what is code fails where it is built
            if name not in files and (file := file_of(name)) is not None:
                files[name] = file
    return {**read, **{f"content of {name}": content_hash(file) for name, file in files.items()}}


def has_handed_over_code(config: Config) -> bool:
    """Whether a reward has code that a Python program handed over, so that no file says what is in it."""
    return any(name in handed() or is_object(name) for name in foreign_code(config.reward.code, NAMES))


def _config(domain: Domain[Any, Any], name: str, overrides: Sequence[str]) -> Config:
    """The configuration whose reward chooses."""
    _, about_reward = sections_of(overrides)
    config = load_config(name, about_reward)
    if config.domain != domain.name:
        raise UserError(f"--config-name {name} is about {config.domain}, the backbone is of {domain.name}")
    return config
