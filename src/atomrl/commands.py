"""`atomrl sample` and `atomrl evaluate`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from omegaconf import OmegaConf

from atomrl.checkpoints.backbone import load_backbone
from atomrl.chemistry.export import Annotated, write_extxyz, write_sdf
from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.config import Config, from_yaml
from atomrl.errors import UserError
from atomrl.evaluation import SamplePlan, best_of, compare, judges, rewarded_metrics, sample
from atomrl.experiment import choose_device
from atomrl.training.run_directory import CONFIG, LATEST


def sample_command(options: argparse.Namespace) -> None:
    """Draw molecules and write them to a file."""
    output: Path = options.output
    if output.suffix not in {".extxyz", ".sdf"}:
        raise UserError(f"--output {output}: the ending says the format, .extxyz or .sdf")
    backbone = load_backbone(options.backbone)
    structures = sample(backbone, _plan(options), choose_device(options.device))
    with MoleculeChecker() as checker:
        annotated = Annotated(structures, [f"{row:05d}" for row in range(len(structures))], checker.check(structures))
    if output.suffix == ".sdf":
        write_sdf(output, annotated)
    else:
        write_extxyz(output, annotated)
    print(f"{len(structures)} molecules -> {output}")


def evaluate_command(options: argparse.Namespace) -> None:
    """Judge a base and a trained model on fresh samples with the same seed."""
    device, plan = choose_device(options.device), _plan(options)
    command = shlex.join(["atomrl", *options.words])
    base = load_backbone(options.base)
    config, checkpoint = _run_of(options.trained)
    trained = None if checkpoint is None else load_backbone(str(checkpoint))
    judged = {}
    with judges() as panel:
        judged["base"] = panel.judge(sample(base, plan, device, "base"))
        if options.best_of > 1:
            control = best_of(base, plan, options.best_of, config.reward, panel, device)
            judged[f"base best of {options.best_of}"] = control
        if trained is not None:
            judged["trained"] = panel.judge(sample(trained, plan, device, "trained"))
    rewarded = rewarded_metrics(config) if trained is not None else set()
    print(compare(judged, rewarded, plan.seed, command, options.output).markdown())
    print(f"tables and molecules -> {options.output}")


def _plan(options: argparse.Namespace) -> SamplePlan:
    """Which molecules the options ask for."""
    if options.num_molecules < 1:
        raise UserError(f"--num-molecules {options.num_molecules}: must be at least 1")
    return SamplePlan(options.num_molecules, options.time_step, options.seed)


def _run_of(trained: Path | None) -> tuple[Config, Path | None]:
    """Configuration and checkpoint of a run directory, or of a checkpoint in one."""
    if trained is None:
        return Config(), None
    checkpoint = trained / LATEST if trained.is_dir() else trained
    if not checkpoint.is_file():
        raise UserError(f"--trained {trained}: no {LATEST} there; give a run directory or a checkpoint file")
    path = checkpoint.parent / CONFIG
    if not path.is_file():
        raise UserError(f"{checkpoint} stands without its {CONFIG}, which says what was rewarded: keep them together")
    return from_yaml(OmegaConf.load(path)), checkpoint
