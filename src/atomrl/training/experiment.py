"""From a configuration to the objects of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from atomrl.config import SAMPLING, Config, TrainSection
from atomrl.core.alignment import ForceAlignment
from atomrl.core.conditioning import Conditioning
from atomrl.core.iteration import IterationConfig
from atomrl.core.objectives.base import Objective, ObjectiveSpec
from atomrl.core.objectives.forward import ForwardObjective
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import Collective, Model
from atomrl.core.records import Transition
from atomrl.core.rollout import RolloutConfig, trainable_steps
from atomrl.core.stages import TOTAL, FailedScores, FailedTotal
from atomrl.core.update import UpdateConfig
from atomrl.domains import base_model, domain_of
from atomrl.policies.own import asked_policy
from atomrl.training.parts import Parts
from atomrl.training.shaping import OnTheWay, shaping_stages, warn_of_an_unpaid_end
from atomrl.training.validation import build_validation
from atomrl.user_code.arguments import require_arguments, takes
from atomrl.user_code.load import load_object
from atomrl.user_code.targets import made, require_methods, target_of
from atomrl.util.errors import UserError, hinted
from atomrl.util.registry import registered
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

log = logging.getLogger(__name__)

OBJECTIVES, KEY = "atomrl.core.objectives", "train.objective"


def build_parts(
    config: Config, workers: Workers | None = None, collective: Collective | None = None
) -> tuple[Parts, Model]:
    """The parts of a run, and the backbone it starts from.

    Args:
        config: of the run.
        workers: of the run; if None local ones, as many as the configuration says. They start at the first scoring.
        collective: see `Parts`.

    Raises:
        UserError: the backbone cannot be loaded, or what the reward needs is not there.
    """
    domain = domain_of(config)
    model = base_model(config)
    trained: Model = domain.trained(config, model)
    policy = trained.policy()
    asked = asked_policy(policy)
    walk = asked.transitions(config.model.time_step)  # refuses a walk that the backbone cannot take
    evaluated, validated = config.evaluation, config.validation
    for steps in (evaluated.time_step if evaluated.samples else None, validated.time_step if validated.every else None):
        if steps is not None:
            asked.transitions(steps)  # now, not after the training
    workers = as_workers(workers or config.reward.workers)
    reward = domain.reward(config, model, workers)
    on_the_way = build_on_the_way(config, walk, domain.may_give_forces(reward))
    weights = domain.channel_weights(config, reward)
    objective = build_objective(config, weights, on_the_way.alignment)
    scored = (*domain.stages(config, reward), FailedTotal(f"raw_{TOTAL}"))
    rule = build_rule_for_failures(config.train)
    plan, sampling = build_plan(config, model.sizes, model.conditioning), build_sampling(config, on_the_way)
    parts = Parts(
        policy=policy,
        plan=plan,
        reward=reward,
        stages=(*scored, *domain.filters(config, workers), rule, *shaping_stages(config, (*scored, rule), weights)),
        objective=objective,
        iteration=IterationConfig(sampling, build_update(config, objective, walk)),
        optimization=config.train,
        total_steps=config.dataloader.epoches if config.train.total_steps is None else config.train.total_steps,
        monitor=domain.monitor(config, model, workers),
        validation=build_validation(config, plan, sampling, scored),
        card={**trained.card, SAMPLING: config.model.model_dump()},
        places_at_once=config.reward.shaping.mlff_batch_size,
        forces_at=on_the_way.aligned,
        collective=collective,
    )
    return parts, model


def build_rule_for_failures(train: TrainSection) -> FailedScores:
    """What failed scores count as, among those that the objective compares."""
    chosen, settings = train.objective, train.model_dump()
    over_batch = isinstance(chosen, str) and registered(OBJECTIVES, chosen, KEY).over_batch(settings)
    return FailedScores(train.failed, over_batch)


def build_objective(
    config: Config, channel_weights: Mapping[str, float], alignment: ForceAlignment | None = None
) -> Objective:
    """The objective that `train.objective` names, or the user's own, over channels of these weights.

    One of the user's gets its options, and `channel_weights` if its constructor has a parameter of this name; an object
    that a program gave is taken as it is.

    Raises:
        UserError: there is none of this name, or it is no objective.
    """
    chosen = config.train.objective
    if isinstance(chosen, str):
        spec: ObjectiveSpec = registered(OBJECTIVES, chosen, KEY)
        shaped = {"terminal_weight": config.reward.shaping.last_weight, "force_alignment": alignment}
        settings = {**config.train.model_dump(), **shaped}
        return spec.make(settings, channel_weights, config.dataloader.each_prompt_sample)
    kind, name, options = _of_the_user(chosen, channel_weights)
    objective: Objective = kind if _is_made(kind) else made(kind, name, options, KEY)
    require_methods(objective, name, ("needs_reference", "needs_walk", "old_decay", "advantages", "terms", "loss"), KEY)
    return objective


def check_objective(chosen: str | Mapping[str, Any]) -> None:
    """Import an objective of the user's, and compare its options with its signature; nothing is made.

    Raises:
        UserError: no such code, or it does not take these options.
    """
    if not isinstance(chosen, str):
        _of_the_user(chosen, {})


def _of_the_user(chosen: Mapping[str, Any], channel_weights: Mapping[str, float]) -> tuple[Any, str, Mapping[str, Any]]:
    """The class of an objective of the user's, its name and its options, which are right by its signature."""
    name, options = target_of(chosen, KEY)
    kind = load_object(name)
    if _is_made(kind):
        if options:
            raise UserError(f"{KEY}: {name} is an object already, and takes no {', '.join(options)}")
        return kind, name, options
    if takes(kind, "channel_weights"):
        options = {"channel_weights": channel_weights, **options}
    require_arguments(kind, options, f"{KEY}: {name}")
    return kind, name, options


def _is_made(found: Any) -> bool:
    """Whether it is an objective already, and neither a class nor what makes one."""
    return hasattr(found, "loss") and not isinstance(found, type)


def build_plan(config: Config, sizes: Mapping[int, int], conditioning: Conditioning | None = None) -> PromptPlan:
    """Prompts from a backbone's size histogram, re-weighted as the configuration says; with values, if it takes some.

    Raises:
        UserError: no size is left, nothing says what to ask a conditional backbone for, or it takes no such value.
    """
    loader = config.dataloader
    with hinted(f" (dataloader.context={loader.context})"):
        if loader.context and conditioning is None:
            raise UserError(f"{config.model.backbone} is not conditional and takes no values: leave them out")
        conditioning = None if conditioning is None else conditioning.asking(loader.context)
    low, high, factor = (
        loader.nodes_dist_focus_min,
        loader.nodes_dist_focus_max,
        loader.nodes_dist_focus_multiplier,
    )
    asked = f"dataloader.nodes_dist_focus_min={low}, nodes_dist_focus_max={high}, nodes_dist_focus_multiplier={factor}"
    with hinted(f" ({asked})"):
        focused = SizeDistribution(sizes).focused(low, high, factor)
    return PromptPlan(focused, loader.sample_group_size, loader.each_prompt_sample, config.seed, conditioning)


def build_on_the_way(config: Config, walk: tuple[Transition, ...], forces: bool) -> OnTheWay:
    """What is scored, and which steps are aligned, before a sample is finished.

    Args:
        config: of the run.
        walk: its transitions.
        forces: whether the reward may compute forces.

    Raises:
        UserError: steps are to be aligned with forces, and the reward computes none.
    """
    train = config.train
    trained = trainable_steps(walk, (train.train_min_time, train.train_max_time), config.model.skip_prefix)
    updating = update_config(train, config.dataloader.micro_batch_size)
    warn_of_an_unpaid_end(config, trained)
    on_the_way = OnTheWay.of(config).aligning(config, trained, updating)
    if on_the_way.aligned and not forces:
        raise UserError(
            "train.force_alignment_enabled=true needs forces, and this reward computes none: take one that does, e.g. "
            "reward.type=xtb, or set train.force_alignment_enabled=false"
        )
    return on_the_way


def build_sampling(config: Config, on_the_way: OnTheWay) -> RolloutConfig:
    """How a run samples."""
    return RolloutConfig(
        estimate_at=on_the_way.scored,
        mean_at=on_the_way.aligned,
        time_step=config.model.time_step,
        micro_batch_size=config.dataloader.micro_batch_size,
        share_initial_noise=config.model.share_initial_noise,
        skip_prefix=config.model.skip_prefix,
        return_suffix_only=config.model.return_suffix_only,
        train_steps=config.train.train_steps,
        train_min_time=config.train.train_min_time,
        train_max_time=config.train.train_max_time,
        log_prob_reduction=config.train.log_prob_reduction,
    )


def build_update(config: Config, objective: Objective, walk: tuple[Transition, ...]) -> UpdateConfig:
    """How a run updates.

    Raises:
        UserError: no transition is trained though the objective needs some, or more steps are asked for than there are
            terms to step along.
    """
    steps = config.train.num_inner_batch
    count, what = terms_of_a_pass(config.train, objective, walk, config.model.skip_prefix)
    if steps is not None and count is not None and steps > count:
        raise UserError(f"train.num_inner_batch={steps} exceeds the {count} {what}: give {count} or fewer, or null")
    return update_config(config.train, config.dataloader.micro_batch_size)


def terms_of_a_pass(
    train: TrainSection, objective: Objective, walk: tuple[Transition, ...], prefix: int = 0
) -> tuple[int | None, str]:
    """How many terms the loss of a pass has, and what they are; None where only the user's objective knows.

    Args:
        train: the section.
        objective: of the run.
        walk: its transitions.
        prefix: of these a group walks so many together, and they are not trained.

    Raises:
        UserError: no transition is trained though the objective needs some.
    """
    if isinstance(objective, ForwardObjective):
        return objective.options.times, "draws of times"
    if not objective.needs_walk:
        return None, ""
    low, high = train.train_min_time, train.train_max_time
    inside = trainable_steps(walk, (low, high))
    trained = trainable_steps(walk, (low, high), prefix)
    if inside and not trained:
        raise UserError(
            f"model.skip_prefix={prefix} holds all transitions of train.train_min_time={low} to train.train_max_time="
            f"{high}, and none is left to train on: lower the prefix or train.train_min_time"
        )
    if not inside:
        raise UserError(
            f"none of {len(walk)} transitions is trained: widen train.train_min_time and train.train_max_time, or, "
            "with model.sampler=ddim, raise model.eta above 0"
        )
    if min(train.train_steps or 0, len(trainable_steps(walk, first=prefix))) > len(trained):
        log.warning(
            f"train.train_steps={train.train_steps}: only {len(trained)} transitions lie in train.train_min_time={low} "
            f"to train.train_max_time={high}, and all of them are trained on"
        )
    return min(len(trained), train.train_steps or len(trained)), "trained transitions"


def update_config(train: TrainSection, micro_batch_size: int) -> UpdateConfig:
    """What the core's update takes.

    Args:
        train: section of a run.
        micro_batch_size: samples that its sampler sees at once, which a backward pass then does too if `train` does not
            say how many it sees.
    """
    accumulated = train.gradient_accumulation_steps
    return UpdateConfig(
        epoch_per_rollout=train.epoch_per_rollout,
        train_micro_batch_size=train.train_micro_batch_size,
        samples_per_step=accumulated and accumulated * (train.train_micro_batch_size or micro_batch_size),
        terms_per_step=train.terms_per_step,
        num_inner_batch=train.num_inner_batch,
        max_grad_norm=train.max_grad_norm,
        max_behaviour_kl=train.max_behaviour_kl,
        exploded_above=train.exploded_above,
    )
