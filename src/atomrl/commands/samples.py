"""`atomrl sample`, `atomrl evaluate` and `atomrl check-reward`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from atomrl.checkpoints.hub import is_hub_name
from atomrl.data.structure_files import CRYSTALS
from atomrl.evaluation.compositions import Composition
from atomrl.evaluation.evaluate import SamplePlan, warn_of_unseen
from atomrl.library.judge_structures import evaluate_structures
from atomrl.library.loading import DEFAULT_BACKBONE, SAMPLED, SEED, Loaded, asking, loaded, sample_plan
from atomrl.library.model_evaluation import ModelEvaluation
from atomrl.library.sampling import not_held, writable
from atomrl.sampling.chosen import Choosing, asked_particles, asked_steering, sections_of
from atomrl.sampling.compositions import Predicting, asked_compositions
from atomrl.sampling.rejected import Rejecting
from atomrl.sampling.sample_file import BROKEN, KEPT, WRITTEN, AsTheyCome, Drawing, Wanted, sample_into
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError


def sample_command(options: argparse.Namespace) -> None:
    """Draw samples and write them to a file."""
    asked_particles(options)
    wanted = asked_compositions(options)
    walk, _ = sections_of(options.overrides)
    found = loaded(options.backbone or DEFAULT_BACKBONE, walk)
    domain, model = found.domain, found.model
    if is_hub_name(model.origin):
        print(f"the model is {model.origin}")
    path = writable(options.output or Path(f"samples.{domain.formats[0]}"), domain)
    plan = sample_plan(domain, options.num_samples, options.time_step, options.seed, SAMPLED)
    plan = asking(plan, options.sizes, _context(options.context))
    warn_of_unseen([model], plan.asked)
    device = choose_device(options.device)
    with domain.exporter(path.suffix[1:]) as exporter, _drawing(found, options, plan, device, wanted) as drawing:
        counts = sample_into(path, drawing, exporter)
    for line in drawing.lines(counts):
        print(line)
    cost = drawing.cost(counts)
    if left_out := counts[KEPT] - counts[WRITTEN]:
        print(not_held(left_out, path, exporter.cannot_hold))
    print(f"{counts[WRITTEN]} {domain.noun} -> {path}{cost}")
    if counts[BROKEN]:
        print(f"{counts[BROKEN]} of {counts[KEPT]} samples are not finite")


def _drawing(
    found: Loaded, options: argparse.Namespace, plan: SamplePlan, device: torch.device, wanted: list[Composition]
) -> Drawing:
    """How the samples come about: by a composition, a check, a reward, or as they come."""
    model, domain, sampler = found.model, found.domain, repr(found.config.model)
    if wanted:
        if domain.name != CRYSTALS:
            raise UserError(
                f"--compositions is for crystals, and {model.origin} makes {domain.noun}: leave it out, or give a "
                "model of crystals that is conditioned on composition"
            )
        return Predicting(model, wanted, options, plan, device, sampler)
    samples = Wanted.of(model, plan, device, sampler)  # refuses what the model cannot do, before a reward is built
    if options.reject:
        return Rejecting(samples, domain, options.reject)
    if options.best_of or options.steer:
        return Choosing(samples, model, domain, options)
    return AsTheyCome(samples)


def evaluate_command(options: argparse.Namespace) -> None:
    """Judge a base and a trained model on fresh samples with the same seed; what was drawn outlives an interruption."""
    command = shlex.join(["atomrl", *options.words])
    if options.structures is not None:
        _evaluate_structures(options, command)
        return
    if options.trust_code and options.trained is None:
        raise UserError("--trust-code is for the code that a run names: give the run with --trained")
    if options.domain is not None:
        raise UserError(f"--domain {options.domain} says what --structures holds: give these too")
    asked = ModelEvaluation(
        base=options.base,
        trained=None if options.trained is None else str(options.trained),
        samples=options.num_samples,
        time_step=options.time_step,
        seed=options.seed,
        best_of=options.best_of,
        steering=asked_steering(options),
        reject=options.reject,
        known=options.known,
        overrides=options.overrides,
        output=options.output,
        device=options.device,
        keep=options.keep,
        asked=None if options.context is None else _context(options.context),
    )
    report = asked.report(command, options.trust_code, "--trust-code")
    print(report.text())
    print(f"tables and samples -> {options.output}")


def _evaluate_structures(options: argparse.Namespace, command: str) -> None:
    """Judge files.

    Raises:
        UserError: an option about samples of a model, a seed of nothing, or as `evaluate_structures`.
    """
    sampling = {"--trained": options.trained, "-n": options.num_samples, "--time-step": options.time_step}
    sampling |= {"--best-of": options.best_of or None, "--steer": options.steer or None}
    sampling |= {"--steer-temperature": options.steer_temperature, "--steer-places": options.steer_places}
    sampling |= {"--reject": options.reject or None, "--context": options.context}
    sampling |= {"--trust-code": options.trust_code or None}
    if given := [name for name, value in sampling.items() if value is not None]:
        raise UserError(f"{given[0]} is about samples of a model, and --structures judges files: give one of the two")
    if options.seed is not None and not options.known:
        raise UserError(f"--seed {options.seed} only chooses the structures of --known here: give --known too")
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


def _context(words: Sequence[str]) -> dict[str, str]:
    """What `--context` asks for, {name: value}.

    Raises:
        UserError: a word that is not name=value, or a name twice.
    """
    asked: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not name or name in asked or not value:
            raise UserError(f"--context {word}: give name=value, each name once, e.g. alpha=75.0")
        asked[name] = value
    return asked
