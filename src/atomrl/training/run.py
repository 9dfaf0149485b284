"""`atomrl train`: build, open the run directory, fit, say where everything is."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from atomrl.checkpoints.stored import read_stored
from atomrl.config import Config, to_yaml
from atomrl.core.protocols import Model
from atomrl.domains import domain_of
from atomrl.evaluation.evaluate import SamplePlan, compare, judge
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.training.callbacks import Checkpoints, Interruption, Limits, Progress, save_tensors
from atomrl.training.jsonl import JSONLLogger
from atomrl.training.requirements import check_needs
from atomrl.training.rl_module import build_module
from atomrl.training.run_directory import (
    CSV,
    LATEST,
    METRICS,
    REPRODUCER,
    check_resumable,
    forget_if_empty,
    fresh_path,
    open_run,
)
from atomrl.training.snapshots import Snapshots
from atomrl.util.device import choose_device
from atomrl.util.errors import NonFiniteLossError, UserError
from atomrl.util.processes import one_process
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

log = logging.getLogger(__name__)

COPIES = 12
"""Weights, averaged weights, reference and two optimizer moments, in two checkpoints and one being written."""


@one_process()
def train(config: Config, name: str, workers: Workers | None = None) -> Path:
    """Run an experiment to its end; returns the run directory.

    Args:
        config: validated.
        name: of the experiment, part of the default save_path.
        workers: who scores; if None local ones, as many as the configuration says.

    Raises:
        UserError: see `check_needs`, `build_module`, `check_resumable` and `open_run`.
        NonFiniteLossError: the loss is not finite; a reproducer was saved in the run directory.
    """
    check_extras(config)
    check_needs(config)
    warn_of_unread(config)
    place = Path(config.save_path) if config.save_path else fresh_path(name)
    first = check_resumable(place, config) if config.resume else 0
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)  # initial weights come from the backbone; this is for what a user adds
    module, model = build_module(config, workers)
    try:
        assert isinstance(module.policy, torch.nn.Module)
        weights = sum(p.numel() * p.element_size() for p in module.policy.parameters())
        folder = open_run(place, to_yaml(config), config.resume, COPIES * weights)
        checkpoint = folder / LATEST if config.resume else None
        left = max(0, config.dataloader.epoches - first)
        print(f"{name}: {model.origin} on {device.type}, {left} iterations -> {folder}")
        try:
            _fit(module, config, folder, checkpoint, first, device)
        finally:
            forget_if_empty(folder)
    finally:
        module.close()
    return folder


@one_process()
def train_and_evaluate(config: Config, name: str, command: str) -> Path:
    """Train, then print and save the before/after table, if evaluation.samples asks for one.

    `command` is what a reader would type to get the same table. The judges are called in before the training, so that
    what they lack does not show at its end.
    """
    check_extras(config)
    check_needs(config)
    if not config.evaluation.samples:
        return train(config, name)
    domain, device = domain_of(config), choose_device(config.device)
    base = domain.load(read_stored(config.model.backbone), config)
    plan = SamplePlan(
        config.evaluation.samples, config.evaluation.time_step or config.model.time_step, config.evaluation.seed
    )
    workers = as_workers(config.reward.workers)
    with domain.panel(config, base, workers) as panel:
        folder = train(config, name, workers)
        models: dict[str, Model] = {"base": base, "trained": domain.load(read_stored(str(folder / LATEST)), config)}
        kept = KeptSamples(folder / "evaluation", repr(config.model))
        with kept.until_written(f"save_path={folder} resume=true"):
            judged = {label: judge(model, plan, panel, device, label, kept) for label, model in models.items()}
            report = compare(judged, domain.rewarded(config), panel, plan, command, folder / "evaluation")
    print(report.markdown())
    print(f"table and {domain.noun} -> {folder / 'evaluation'}")
    return folder


def check_extras(config: Config) -> None:
    """Raise UserError for options whose package is not installed."""
    if config.wandb.enabled and importlib.util.find_spec("wandb") is None:
        raise UserError("wandb.enabled=true needs the package wandb: pip install 'atomrl[wandb]', or set it to false")


def warn_of_unread(config: Config) -> None:
    """Name the keys that the chosen objective does not read, all in one warning."""
    if unread := config.train.unread:
        named = ", ".join(f"train.{name}" for name in unread)
        log.warning(f"train.objective={config.train.objective} does not read {named}: what they say changes nothing")


def _fit(
    module: torch.nn.Module, config: Config, folder: Path, checkpoint: Path | None, first: int, device: torch.device
) -> None:
    """Let Lightning drive the iterations."""
    assert isinstance(module, lightning.LightningModule)
    interruption, snapshots, _progress = Interruption(), Snapshots(), Progress(domain_of(config).shown)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=config.dataloader.epoches,
            default_root_dir=folder,
            logger=_loggers(config, folder, first),
            callbacks=[
                interruption,
                Progress(domain_of(config).shown),
                Limits(config),
                Checkpoints(folder, config, snapshots),
            ],
            plugins=[snapshots, LightningEnvironment()],  # not what it makes of Slurm's variables, see `processes`
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,  # the prompts of each iteration are their own
        )
        try:
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        except (SystemExit, RuntimeError):
            # Lightning turns Ctrl-C into an exit with code 1, or, between two iterations, into an error of its own
            # tear-down; SIGTERM, as of a batch system, ends a run after the iteration in which it comes.
            if interruption.code is None:
                raise
            print(f"\n{_how_to_go_on(folder)}", flush=True)
            raise (KeyboardInterrupt if interruption.code == 130 else SystemExit(interruption.code)) from None
        except NonFiniteLossError as error:
            path = folder / REPRODUCER
            save_tensors(path, error.reproducer)
            raise NonFiniteLossError(f"{error}; the run stopped, {path} reproduces it", error.reproducer) from error


def _how_to_go_on(folder: Path) -> str:
    """What to do after Ctrl-C."""
    if (folder / LATEST).is_file():
        return f"stopped; continue with: save_path={folder} resume=true, beside the words that it was started with"
    return f"stopped before the first checkpoint; start again with: save_path={folder}"


def _loggers(config: Config, folder: Path, first: int) -> list[Logger]:
    """metrics.jsonl always; the others as asked."""
    loggers: list[Logger] = [JSONLLogger(folder / METRICS, first, folder / CSV if config.log.csv else None)]
    if config.log.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    if config.wandb.enabled:
        from lightning.pytorch.loggers import WandbLogger  # noqa: PLC0415 - an extra

        loggers.append(WandbLogger(name=config.wandb.name, project=config.wandb.project, save_dir=folder))
    return loggers
