"""Values out of range, and keys that contradict each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from atomrl.config.crystals import CrystalConfig
from atomrl.config.molecules import MoleculeConfig, MoleculeTrain
from atomrl.config.sections import Config, TrainSection
from atomrl.util.errors import UserError

REWARDS = {"molecules": ("xtb", "dummy"), "crystals": ("reinforce", "dummy")}

READ_BY = {
    "fed_grpo": ("clip_advantage_value",),
    "grpo": ("group_reward_norm", "reward_normalize_fn", "reward_eps", "kl_weight", "entropy_weight"),
}
"""Keys of `train` that only one objective reads."""

MOST_RATE = 1.0
"""Of a learning rate: AdamW moves each weight by about as much in a step."""

MOST_THREADS = 1024
"""Of torch, which dies where the system gives it fewer than it wants."""

DAY = 86_400.0
"""Seconds that one score may take."""

SEEDS = range(-(2**63), 2**64)
"""What torch takes."""


def check(config: Config) -> None:
    """Refuse values out of range and keys that contradict each other."""
    _check_counts(config)
    _check_numbers(config)
    _check_choices(config)
    _check_objective(config.train)
    _check_together(config)
    if isinstance(config, MoleculeConfig):
        _check_molecules(config)
    if isinstance(config, CrystalConfig):
        _check_crystals(config)
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


def _check_counts(config: Config) -> None:
    """Whole numbers."""
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
        ("train.warmup_steps", train.warmup_steps, 0),
        ("train.total_steps", train.total_steps, 1),
        ("save_every", config.save_every, 1),
        ("threads", config.threads, 1),
        ("reward.workers", config.reward.workers, 1),
        ("evaluation.samples", config.evaluation.samples, 0),
        ("evaluation.time_step", config.evaluation.time_step, 1),
    ):
        _at_least(key, value, low)
    if config.threads is not None and config.threads > MOST_THREADS:
        raise UserError(f"threads={config.threads}: must be at most {MOST_THREADS}")
    for key, seed in (("seed", config.seed), ("evaluation.seed", config.evaluation.seed)):
        if seed not in SEEDS:
            raise UserError(f"{key}={seed}: must be a number of 64 bits")


def _check_numbers(config: Config) -> None:
    """Other numbers."""
    train = config.train
    _positive("train.learning_rate", train.learning_rate, most=MOST_RATE)
    for key, value in (
        ("train.clip_range", train.clip_range),
        ("train.clip_advantage_value", train.clip_advantage_value),
        ("train.max_grad_norm", train.max_grad_norm),
        ("train.max_behaviour_kl", train.max_behaviour_kl),
        ("train.exploded_above", train.exploded_above),
        ("max_time_hours", config.max_time_hours),
    ):
        _positive(key, value)
    for key, number in (
        ("train.kl_penalty_weight", train.kl_penalty_weight),
        ("train.kl_weight", train.kl_weight),
        ("train.entropy_weight", train.entropy_weight),
        ("train.weight_decay", train.weight_decay),
        ("early_stop_minutes", config.early_stop_minutes),
        ("early_stop_delta", config.early_stop_delta),
        ("dataloader.nodes_dist_focus_multiplier", config.dataloader.nodes_dist_focus_multiplier),
    ):
        _not_negative(key, number)
    for name in ("decay_fraction", "min_lr_ratio", "ema_decay"):
        if not 0 <= getattr(train, name) <= 1:
            raise UserError(f"train.{name}={getattr(train, name)}: must lie between 0 and 1")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(train, name) < 1:
            raise UserError(f"train.{name}={getattr(train, name)}: must be at least 0 and below 1")
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


def _check_objective(train: TrainSection) -> None:
    """Refuse what the chosen objective would not read; a default cannot be told from its own value, and passes."""
    default = {entry.name: entry.default for entry in fields(train)}
    for other in READ_BY.keys() - {train.objective}:
        unread = [name for name in READ_BY[other] if getattr(train, name) != default[name]]
        if unread:
            given = ", ".join(f"train.{name}={getattr(train, name)}" for name in unread)
            back = " ".join(f"train.{name}={default[name]}" for name in unread)
            raise UserError(
                f"train.objective={train.objective} does not read {given}, which train.objective={other} does: "
                f"choose that one, or set {back}"
            )


def _check_together(config: Config) -> None:
    """Keys that say something about each other."""
    loader, train = config.dataloader, config.train
    low, high = loader.nodes_dist_focus_min, loader.nodes_dist_focus_max
    if low is not None and high is not None and low > high:
        raise UserError(f"dataloader.nodes_dist_focus_min={low} exceeds dataloader.nodes_dist_focus_max={high}")
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


def _check_molecules(config: MoleculeConfig) -> None:
    """Keys that only molecules have."""
    reward, train = config.reward, config.train
    _at_least("reward.max_iterations", reward.max_iterations, 1)
    _positive("reward.timeout", reward.timeout, most=DAY)
    references = reward.energy_atom_refs
    if isinstance(references, Mapping):
        bad = [
            entry
            for entry, energy in references.items()
            if not (isinstance(energy, int | float) and math.isfinite(energy))
        ]
    else:
        bad = [] if references in ("xtb", None) else [references]
    if bad:
        raise UserError(f"reward.energy_atom_refs: {bad[0]} is no energy of a symbol: give xtb, {{symbol: eV}} or null")
    published = MoleculeTrain().channel_weights
    for channel, weight in train.channel_weights.items():
        _not_negative(f"train.{channel}_adv_weight", weight)
        if weight and channel not in reward.channels and weight != published[channel]:
            raise UserError(
                f"train.{channel}_adv_weight={weight}, but {_why_absent(channel, reward.type)}, or set the weight to 0"
            )
    if not any(config.channel_weights.values()):
        keys = ", ".join(f"train.{channel}_adv_weight" for channel in reward.channels)
        raise UserError(f"{keys}: the weight of every channel is 0, and nothing would be learned; raise one")


def _why_absent(channel: str, reward_type: str) -> str:
    """Why a reward does not give a channel, and what to do."""
    if reward_type == "dummy":
        return f"reward.type=dummy has no channel {channel}: choose reward.type=xtb"
    if channel == "energy":
        return "reward.use_energy=false: there is no energy channel; set reward.use_energy=true"
    return "reward.stability_channel=force: stability is no channel of its own; set reward.stability_channel=own"


def _check_crystals(config: CrystalConfig) -> None:
    """Keys that only crystals have."""
    _at_least("reward.batch_size", config.reward.batch_size, 1)
    _at_least("evaluation.relaxed", config.evaluation.relaxed, 0)
    _positive("reward.timeout", config.reward.timeout, most=DAY)
    if config.evaluation.second_judge not in (None, "sevennet"):
        raise UserError(f"evaluation.second_judge={config.evaluation.second_judge}: must be sevennet or null")


def _at_least(key: str, value: int | None, low: int) -> None:
    """Refuse a smaller number; None is left to who reads it."""
    if value is not None and value < low:
        raise UserError(f"{key}={value}: must be at least {low}")


def _positive(key: str, value: float | None, most: float = math.inf) -> None:
    """Refuse 0, what is below, NaN, and what exceeds `most`; None is left to who reads it."""
    if value is not None and not 0 < value <= most:
        raise UserError(f"{key}={value}: must be positive" + (f" and at most {most:g}" if most < math.inf else ""))


def _not_negative(key: str, value: float) -> None:
    """Refuse what is below 0, and what is not finite."""
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{key}={value}: must be 0 or more")
