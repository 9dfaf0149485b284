"""`atomrl train`: build, open the run directory, fit, say where everything is."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus

from atomrl.checkpoints.stored import read_stored, read_torch
from atomrl.config import Config, to_yaml
from atomrl.config.checks import check_needs
from atomrl.domains import Model, domain_of
from atomrl.errors import NonFiniteLossError, UserError
from atomrl.evaluation import SamplePlan, compare, sample
from atomrl.experiment import build_module, choose_device
from atomrl.training.callbacks import Checkpoints, Limits, Progress
from atomrl.training.jsonl import JSONLLogger
from atomrl.training.run_directory import LATEST, METRICS, fresh_path, open_run

COPIES = 12
"""Weights, averaged weights, reference and two optimizer moments, in two checkpoints and one being written."""


def train(config: Config, name: str) -> Path:
    """Run an experiment to its end; returns the run directory.

    Args:
        config: validated.
        name: of the experiment, part of the default save_path.

    Raises:
        UserError: see `check_needs`, `build_module` and `open_run`.
        NonFiniteLossError: the loss is not finite; a reproducer was saved in the run directory.
    """
    check_extras(config)
    check_needs(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)  # initial weights come from the backbone; this is for what a user adds
    module, model = build_module(config)
    try:
        assert isinstance(module.policy, torch.nn.Module)
        weights = sum(p.numel() * p.element_size() for p in module.policy.parameters())
        folder = open_run(
            Path(config.save_path) if config.save_path else fresh_path(name),
            to_yaml(config),
            config.resume,
            COPIES * weights,
        )
        checkpoint = folder / LATEST if config.resume else None
        first = 0 if checkpoint is None else int(read_torch(checkpoint)["atomrl"]["iteration"]) + 1
        print(f"{name}: {model.origin} on {device.type}, {config.dataloader.epoches - first} iterations -> {folder}")
        _fit(module, config, folder, checkpoint, first, device)
    finally:
        module.close()
    return folder


def train_and_evaluate(config: Config, name: str, command: str) -> Path:
    """Train, then print and save the before/after table, if evaluation.samples asks for one.

    `command` is what a reader would type to get the same table.
    """
    folder = train(config, name)
    if not config.evaluation.samples:
        return folder
    domain, device = domain_of(config), choose_device(config.device)
    plan = SamplePlan(
        config.evaluation.samples, config.evaluation.time_step or config.model.time_step, config.evaluation.seed
    )
    places = {"base": config.model.backbone, "trained": str(folder / LATEST)}
    models: dict[str, Model] = {label: domain.load(read_stored(where), config) for label, where in places.items()}
    with domain.panel(config, models["base"]) as panel:
        judged = {label: panel.judge(sample(model, plan, device, label)) for label, model in models.items()}
        report = compare(judged, domain.rewarded(config), panel, plan.seed, command, folder / "evaluation")
    print(report.markdown())
    print(f"table and {domain.noun} -> {folder / 'evaluation'}")
    return folder


def check_extras(config: Config) -> None:
    """Refuse options whose package is not installed."""
    if config.wandb.enabled and importlib.util.find_spec("wandb") is None:
        raise UserError("wandb.enabled=true needs the package wandb: pip install 'atomrl[wandb]', or set it to false")


def _fit(
    module: torch.nn.Module, config: Config, folder: Path, checkpoint: Path | None, first: int, device: torch.device
) -> None:
    """Let Lightning drive the iterations."""
    assert isinstance(module, lightning.LightningModule)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=config.dataloader.epoches,
            default_root_dir=folder,
            logger=_loggers(config, folder, first),
            callbacks=[Progress(), Limits(config), Checkpoints(folder, config)],
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
            # tear-down; either way its status says what happened.
            if trainer.state.status != TrainerStatus.INTERRUPTED:
                raise
            print(f"\nstopped; continue with: save_path={folder} resume=true", flush=True)
            raise KeyboardInterrupt from None
        except NonFiniteLossError as error:
            path = folder / "nonfinite_loss.pt"
            torch.save(dict(error.reproducer), path)
            raise NonFiniteLossError(f"{error}; the run stopped, {path} reproduces it", error.reproducer) from error


def _loggers(config: Config, folder: Path, first: int) -> list[Logger]:
    """metrics.jsonl always; the others as asked."""
    loggers: list[Logger] = [JSONLLogger(folder / METRICS, first)]
    if config.log.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    if config.log.csv:
        loggers.append(CSVLogger(folder, name="csv", version=""))
    if config.wandb.enabled:
        from lightning.pytorch.loggers import WandbLogger  # noqa: PLC0415 - an extra

        loggers.append(WandbLogger(project=config.wandb.project, save_dir=folder))
    return loggers
