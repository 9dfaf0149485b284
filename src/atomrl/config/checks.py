"""Values out of range, and keys that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atomrl.config.sections import Config
from atomrl.errors import UserError

REWARDS = {"molecules": ("xtb", "dummy"), "crystals": ("reinforce", "dummy")}


def check(config: Config) -> None:
    """Refuse values out of range and keys that contradict each other."""
    _check_ranges(config)
    _check_choices(config)
    _check_together(config)
    needs = config.needs
    if not isinstance(needs, Mapping) or not all(isinstance(text, str) for pair in needs.items() for text in pair):
        raise UserError(f"needs={config.needs}: must map each path to a text that says where to get it")


def check_needs(config: Config) -> None:
    """Refuse to start without files that the experiment needs, see `Config.needs`.

    Raises:
        UserError: some are missing; all of them are named.
    """
    tree = asdict(config)
    needs = tree.pop("needs")
    # `file.py:name` names the file
    named = {Path(form) for text in _texts(tree) for form in (text, text.partition(".py:")[0] + ".py")} - {Path()}
    asked = {path: how for path, how in needs.items() if named & {Path(path), *Path(path).parents}}
    if missing := [f"{path} ({how})" for path, how in asked.items() if not Path(path).exists()]:
        raise UserError(f"this experiment needs what is not in {Path.cwd()}: {'; '.join(missing)}")


def _texts(tree: Any) -> Iterator[str]:
    """All texts among the values of nested mappings and lists."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping | list):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _texts(value)


def _check_ranges(config: Config) -> None:
    """Numbers."""
    loader, train = config.dataloader, config.train
    for key, value, low in (
        ("model.time_step", config.model.time_step, 1),
        ("dataloader.sample_group_size", loader.sample_group_size, 1),
        ("dataloader.each_prompt_sample", loader.each_prompt_sample, 1),
        ("dataloader.epoches", loader.epoches, 1),
        ("train.train_steps", train.train_steps, 1),
        ("train.epoch_per_rollout", train.epoch_per_rollout, 1),
        ("train.train_micro_batch_size", train.train_micro_batch_size, 1),
        ("train.gradient_accumulation_steps", train.gradient_accumulation_steps, 1),
        ("train.num_inner_batch", train.num_inner_batch, 1),
        ("save_every", config.save_every, 1),
        ("reward.workers", config.reward.workers, 1),
        ("evaluation.samples", config.evaluation.samples, 0),
    ):
        if value is not None and value < low:
            raise UserError(f"{key}={value}: must be at least {low}")
    for key, number in (("train.learning_rate", train.learning_rate), ("train.clip_range", train.clip_range)):
        if not number > 0:
            raise UserError(f"{key}={number}: must be positive")
    if not 0 <= train.train_min_time < train.train_max_time <= 1:
        raise UserError(
            f"train.train_min_time={train.train_min_time}, train.train_max_time={train.train_max_time}: "
            "must be times between 0 and 1, the first below the second"
        )


def _check_choices(config: Config) -> None:
    """Words."""
    train = config.train
    for key, choice, allowed in (
        ("reward.type", config.reward.type, REWARDS[config.domain]),
        ("train.objective", train.objective, ("fed_grpo", "grpo")),
        ("train.step_weighting", train.step_weighting, ("published", "balanced")),
        ("train.failed", train.failed, ("worst", "mask")),
        ("train.log_prob_reduction", train.log_prob_reduction, ("sum", "mean")),
        ("train.scheduler", train.scheduler, ("constant", "cosine", "wsd")),
        ("best_checkpoint_mode", config.best_checkpoint_mode, ("max", "min")),
        ("device", config.device, ("auto", "cpu", "cuda")),
    ):
        if choice not in allowed:
            raise UserError(f"{key}={choice}: must be one of {', '.join(allowed)}")


def _check_together(config: Config) -> None:
    """Keys that say something about each other."""
    loader, train = config.dataloader, config.train
    if loader.each_prompt_sample == 1 and (train.objective == "fed_grpo" or train.group_reward_norm):
        raise UserError(
            "dataloader.each_prompt_sample=1: a group of one has no spread to normalise by, nothing would be learned; "
            "raise it, or set train.objective=grpo and train.group_reward_norm=false"
        )
    if train.num_inner_batch is not None and train.gradient_accumulation_steps is not None:
        raise UserError(
            "train.num_inner_batch and train.gradient_accumulation_steps both say when the optimizer steps: set one"
        )
    if loader.micro_batch_size < loader.each_prompt_sample:
        raise UserError(
            f"dataloader.micro_batch_size={loader.micro_batch_size} is smaller than a group "
            f"(dataloader.each_prompt_sample={loader.each_prompt_sample}), and a group is never split: raise it"
        )
    if train.train_steps is not None and train.train_steps > config.model.time_step:
        raise UserError(f"train.train_steps={train.train_steps} exceeds model.time_step={config.model.time_step}")
    if config.resume and config.save_path is None:
        raise UserError("resume=true needs save_path: the run directory to continue")
