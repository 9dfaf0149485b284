"""`atomrl sample` and `atomrl evaluate`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from omegaconf import OmegaConf

from atomrl.checkpoints.stored import read_stored
from atomrl.config import from_yaml
from atomrl.domains import Model, domain_for
from atomrl.errors import UserError
from atomrl.evaluation import SamplePlan, best_of, compare, sample
from atomrl.experiment import choose_device
from atomrl.training.run_directory import find_run


def sample_command(options: argparse.Namespace) -> None:
    """Draw samples and write them to a file."""
    stored = read_stored(options.backbone)
    domain = domain_for(stored)
    path: Path = options.output or Path(f"samples.{domain.formats[0]}")
    if path.suffix[1:] not in domain.formats:
        endings = " or ".join(f".{name}" for name in domain.formats)
        raise UserError(f"--output {path}: the ending says the format, {endings} for {domain.noun}")
    model: Model = domain.load(stored, domain.default_config())
    structures = sample(model, _plan(options, domain.time_step), choose_device(options.device))
    domain.export(path, structures)
    print(f"{len(structures)} {domain.noun} -> {path}")


def evaluate_command(options: argparse.Namespace) -> None:
    """Judge a base and a trained model on fresh samples with the same seed."""
    command = shlex.join(["atomrl", *options.words])
    stored = read_stored(options.base)
    domain = domain_for(stored)
    device, plan = choose_device(options.device), _plan(options, domain.time_step)
    config, trained = domain.default_config(), None
    if options.trained is not None:
        checkpoint, described = find_run(options.trained)
        config = from_yaml(OmegaConf.load(described))
        if config.domain != domain.name:
            raise UserError(f"--base {options.base} is a model of {domain.name}, --trained a run on {config.domain}")
        trained = domain.load(read_stored(str(checkpoint)), config)
    base: Model = domain.load(stored, config)
    judged = {}
    with domain.panel(config, base) as panel:
        judged["base"] = panel.judge(sample(base, plan, device, "base"))
        if options.best_of > 1:
            judged[f"base best of {options.best_of}"] = best_of(base, plan, options.best_of, panel, device)
        if trained is not None:
            judged["trained"] = panel.judge(sample(trained, plan, device, "trained"))
        rewarded = domain.rewarded(config) if trained is not None else set()
        report = compare(judged, rewarded, panel, plan.seed, command, options.output)
    print(report.markdown())
    print(f"tables and {domain.noun} -> {options.output}")


def _plan(options: argparse.Namespace, time_step: int) -> SamplePlan:
    """Which samples the options ask for."""
    if options.num_samples < 1:
        raise UserError(f"--num-molecules {options.num_samples}: must be at least 1")
    return SamplePlan(options.num_samples, options.time_step or time_step, options.seed)
