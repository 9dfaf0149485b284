"""`atomrl sample`, `atomrl evaluate` and `atomrl check-reward`."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from atomrl.checkpoints.hub import is_hub_name
from atomrl.checkpoints.named import named_model
from atomrl.checkpoints.stored import Stored, read_named, read_stored
from atomrl.chosen_samples import asked_particles, choose, require_number_of_draws, sections_of
from atomrl.composition_samples import asked_compositions, composition_samples
from atomrl.config import Config, as_trained, with_overrides
from atomrl.core.protocols import Model
from atomrl.core.records import Structures
from atomrl.domains import domain_for
from atomrl.domains.base import Domain
from atomrl.evaluation.compositions import Composition
from atomrl.evaluation.evaluate import SamplePlan, best_of, compare, drawn_by, judge, prompt_plan
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.rejection import Passed, draw_until_accepted
from atomrl.evaluation_options import overridden, require_new_table
from atomrl.judge_structures import evaluate_structures
from atomrl.sample_file import sample_into
from atomrl.training.run_directory import described_run
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable

DEFAULT_BACKBONE = "edm_qm9_small"
SAMPLED, EVALUATED, SEED = 10, 1000, 1_000_003
"""Samples that `atomrl sample` and `atomrl evaluate` draw, and their seed, if the user does not say."""


def sample_command(options: argparse.Namespace) -> None:
    """Draw samples and write them to a file."""
    stored = read_stored(options.backbone or DEFAULT_BACKBONE)
    if is_hub_name(stored.origin):
        print(f"the model is {stored.origin}")
    domain = domain_for(stored)
    path: Path = options.output or Path(f"samples.{domain.formats[0]}")
    if path.suffix[1:] not in domain.formats:
        endings = " or ".join(f".{name}" for name in domain.formats)
        raise UserError(f"--output {path}: the ending says the format, {endings} for {domain.noun}")
    if path.is_dir():
        raise UserError(f"--output {path} is a folder: give a file in it")
    particles, wanted = asked_particles(options), asked_compositions(options)
    walk, _ = sections_of(options.overrides)
    config = with_overrides(as_trained(domain.name, stored.card), walk)
    model: Model = domain.load(stored, config)
    require_writable(path.parent, f"the folder of --output {path}")
    plan = replace(_plan(options, domain.time_step, SAMPLED), **_asked(options))
    device = choose_device(options.device)
    if not wanted:
        prompt_plan(model, plan, 1)  # refuses what the model cannot do, before a reward is built
    with domain.exporter(path.suffix[1:]) as exporter:
        if not (options.reject or wanted) and particles == 1:
            drawn, cost = plan.count, ""
            written = sample_into(path, model, plan, exporter, device, repr(config.model))
        else:
            structures, cost = _chosen(model, domain, options, plan, device, wanted)
            drawn, written = len(structures), exporter.write(path, structures)
    if written < drawn:
        print(
            f"{drawn - written} samples have no {path.suffix[1:].upper()} ({exporter.cannot_hold}): see an .extxyz file"
        )
    print(f"{drawn} {domain.noun} -> {path}{cost}")


def _chosen(
    model: Model,
    domain: Domain[Any, Any],
    options: argparse.Namespace,
    plan: SamplePlan,
    device: torch.device,
    wanted: list[Composition],
) -> tuple[Structures, str]:
    """What a composition, a check or a reward chose, and what it cost."""
    if wanted:
        return composition_samples(model, wanted, options, plan, device), ""
    if options.reject:
        return _accepted(draw_until_accepted(model, plan, options.reject, domain.accepts, device), domain)
    chosen = choose(model, domain, options, plan, device)
    return chosen.structures, f" after {chosen.scorings:,} scorings and {chosen.network_calls:,} calls of the network"


def _accepted(found: Passed, domain: Domain[Any, Any]) -> tuple[Structures, str]:
    """What passed, and what it cost.

    Raises:
        UserError: nothing did.
    """
    wanted, structures = len(found.passed), found.accepted
    if not len(structures):
        raise UserError(
            f"--reject: none of {found.drawn:,} {domain.noun} is {domain.accepted}; raise it, or --time-step"
        )
    never = f"; {wanted - len(structures)} of {wanted} never were" if len(structures) < wanted else ""
    return structures, f", {domain.accepted}, of {found.drawn:,} that were drawn{never}"


def evaluate_command(options: argparse.Namespace) -> None:
    """Judge a base and a trained model on fresh samples with the same seed; what was drawn outlives an interruption."""
    command = shlex.join(["atomrl", *options.words])
    if options.structures is not None:
        _evaluate_structures(options, command)
        return
    if options.domain is not None:
        raise UserError(f"--domain {options.domain} says what --structures holds: give these too")
    for name, number in (("--best-of", options.best_of), ("--reject", options.reject)):
        require_number_of_draws(name, number, "for no such control")
    require_new_table(options.output, options.known)
    if options.best_of and options.trained is None:
        raise UserError(f"--best-of {options.best_of} chooses by a training's reward: give the run with --trained")
    stored = read_stored(options.base or DEFAULT_BACKBONE)
    domain = domain_for(stored)
    device, plan = choose_device(options.device), _plan(options, domain.time_step, EVALUATED)
    config, tuned, is_run = as_trained(domain.name, stored.card), None, False
    if options.trained is not None:
        config, tuned, is_run = _trained(options, domain, stored)
    config = overridden(config, options.overrides).changed(device=options.device)  # of this command, not of the run
    base: Model = domain.load(stored, config)
    trained: Model | None = None if tuned is None else domain.load(tuned, config)
    require_writable(options.output, f"--output {options.output}")
    kept, judged = KeptSamples(options.output, repr(config.model), options.keep), {}
    with domain.panel(config, base) as panel, kept.until_written(command):
        judged["base"] = judge(base, plan, panel, device, "base", kept)
        if options.reject:
            found = draw_until_accepted(base, plan, options.reject, domain.accepts, device, kept)
            rejected = panel.judge(found.structures, kept, found.prompts)
            judged["base after rejection"] = replace(rejected, drawn=found.drawn, model=drawn_by(base))
        if options.best_of:
            judged[f"base best of {options.best_of}"] = best_of(base, plan, options.best_of, panel, device, kept)
        if trained is not None:
            judged["trained"] = judge(trained, plan, panel, device, "trained", kept)
        if options.known:
            judged["known set"] = replace(panel.judge(panel.known_samples(options.known, plan.seed), kept), drawn=0)
        rewarded = domain.rewarded(config) if is_run else set()
        report = compare(judged, rewarded, panel, plan, command, options.output)
    print(report.text())
    print(f"tables and {domain.noun} -> {options.output}")


def _trained(options: argparse.Namespace, domain: Domain[Any, Any], base: Stored) -> tuple[Config, Stored, bool]:
    """What the trained model's run says, or the documented defaults; the model; and whether a run says it.

    Raises:
        UserError: it is of another domain than the base, or there is no run to choose by the reward of.
    """
    found = named_model(options.trained)
    if found.described is not None:
        config = described_run(found.described, options.trust_code, "--trust-code")  # refuses code before it reads more
        if config.domain != domain.name:
            raise UserError(
                f"--base {base.origin} is a model of {domain.name}, --trained a run on {config.domain}: give "
                f"--base {config.model.backbone}, which that run started from"
            )
        return config, read_named(found), True
    tuned = read_named(found)
    if domain_for(tuned) is not domain:
        raise UserError(
            f"--base {base.origin} is a model of {domain.name}, --trained {options.trained} one of "
            f"{domain_for(tuned).name}: give two of one kind"
        )
    if options.best_of:
        raise UserError(
            f"--best-of {options.best_of} chooses by a training's reward, and {options.trained} is a model without its "
            "run: give the run directory"
        )
    print(
        f"{options.trained} is a model without its run's config.yaml: no metric is marked as rewarded, and what is "
        "judged is as documented, or as you say"
    )
    return as_trained(domain.name, tuned.card), tuned, False


def _evaluate_structures(options: argparse.Namespace, command: str) -> None:
    """Judge files.

    Raises:
        UserError: an option about samples of a model, or as `evaluate_structures`.
    """
    sampling = {"--trained": options.trained, "-n": options.num_samples, "--time-step": options.time_step}
    sampling |= {"--best-of": options.best_of or None, "--reject": options.reject or None}
    if given := [name for name, value in sampling.items() if value is not None]:
        raise UserError(f"{given[0]} is about samples of a model, --structures judges files: give one of both")
    paths = [word for word in options.structures if "=" not in word or Path(word).exists()]
    report = evaluate_structures(
        paths,
        options.output,
        domain=options.domain,
        base=options.base,
        known=options.known,
        seed=SEED if options.seed is None else options.seed,
        overrides=[*(word for word in options.structures if word not in paths), *options.overrides],
        device=options.device,
        keep=options.keep,
        command=command,
    )
    print(report.text())
    print(f"tables and structures -> {options.output}")


def _plan(options: argparse.Namespace, time_step: int, count: int) -> SamplePlan:
    """Which samples the options ask for; otherwise these."""
    count = count if options.num_samples is None else options.num_samples
    time_step = time_step if options.time_step is None else options.time_step
    for name, number in (("-n", count), ("--time-step", time_step)):
        if number < 1:
            raise UserError(f"{name} {number}: must be at least 1")
    return SamplePlan(count, time_step, SEED if options.seed is None else options.seed)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """What `--sizes` and `--context` ask for, as fields of a `SamplePlan`.

    Raises:
        UserError: a size twice or below 1, a word that is not name=value, or a name twice.
    """
    if min(options.sizes, default=1) < 1 or len(set(options.sizes)) < len(options.sizes):
        raise UserError(f"--sizes {' '.join(map(str, options.sizes))}: numbers of atoms, 1 or more, each once")
    asked: dict[str, str] = {}
    for word in options.context:
        name, _, value = word.partition("=")
        if not name or name in asked or not value:
            raise UserError(f"--context {word}: give name=value, each name once, e.g. alpha=75.0")
        asked[name] = value
    return {"sizes": tuple(options.sizes), "asked": asked}
