"""`atomrl sample`, `atomrl evaluate` and `atomrl check-reward`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import torch

from atomrl.checkpoints.hub import is_hub_name
from atomrl.chosen_samples import asked_particles, choose, sections_of
from atomrl.composition_samples import asked_compositions, composition_samples
from atomrl.core.protocols import Model
from atomrl.core.records import Structures
from atomrl.domains.base import Domain
from atomrl.evaluation.compositions import Composition
from atomrl.evaluation.evaluate import SamplePlan, prompt_plan
from atomrl.evaluation.rejection import Passed, draw_until_accepted
from atomrl.judge_structures import evaluate_structures
from atomrl.library.evaluating import ModelEvaluation
from atomrl.library.loading import DEFAULT_BACKBONE, SAMPLED, SEED, asking, loaded, sample_plan
from atomrl.library.sampling import not_held, writable
from atomrl.sample_file import sample_into
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError


def sample_command(options: argparse.Namespace) -> None:
    """Draw samples and write them to a file."""
    particles, wanted = asked_particles(options), asked_compositions(options)
    walk, _ = sections_of(options.overrides)
    found = loaded(options.backbone or DEFAULT_BACKBONE, walk)
    domain, model = found.domain, found.model
    if is_hub_name(model.origin):
        print(f"the model is {model.origin}")
    path = writable(options.output or Path(f"samples.{domain.formats[0]}"), domain)
    plan = sample_plan(domain, options.num_samples, options.time_step, options.seed, SAMPLED)
    plan = asking(plan, options.sizes, _context(options))
    device = choose_device(options.device)
    if not wanted:
        prompt_plan(model, plan, 1)  # refuses what the model cannot do, before a reward is built
    with domain.exporter(path.suffix[1:]) as exporter:
        if not (options.reject or wanted) and particles == 1:
            drawn, cost = plan.count, ""
            written = sample_into(path, model, plan, exporter, device, repr(found.config.model))
        else:
            structures, cost = _chosen(model, domain, options, plan, device, wanted)
            drawn, written = len(structures), exporter.write(path, structures)
    if written < drawn:
        print(not_held(drawn - written, path, exporter.cannot_hold))
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
    asked = ModelEvaluation(
        base=options.base,
        trained=None if options.trained is None else str(options.trained),
        samples=options.num_samples,
        time_step=options.time_step,
        seed=options.seed,
        best_of=options.best_of,
        reject=options.reject,
        known=options.known,
        overrides=options.overrides,
        output=options.output,
        device=options.device,
        keep=options.keep,
    )
    report = asked.report(command, options.trust_code, "--trust-code")
    print(report.text())
    print(f"tables and samples -> {options.output}")


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


def _context(options: argparse.Namespace) -> dict[str, str]:
    """What `--context` asks for.

    Raises:
        UserError: a word that is not name=value, or a name twice.
    """
    asked: dict[str, str] = {}
    for word in options.context:
        name, _, value = word.partition("=")
        if not name or name in asked or not value:
            raise UserError(f"--context {word}: give name=value, each name once, e.g. alpha=75.0")
        asked[name] = value
    return asked
