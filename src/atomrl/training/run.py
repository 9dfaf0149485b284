"""`atomrl train`: build, open the run directory, fit, say where everything is."""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback

from atomrl.checkpoints.folder import CONFIG
from atomrl.checkpoints.named import EVALUATION, LATEST, METRICS, pinned
from atomrl.checkpoints.stored import read_stored
from atomrl.config import Config, read_config, to_yaml
from atomrl.config.objects import objects_of
from atomrl.core.protocols import Collective, Model
from atomrl.domains import base_model, domain_of, model_of
from atomrl.evaluation.evaluate import SamplePlan, compare, judge, require_asked, warn_of_unseen
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.report.report import write_report
from atomrl.training.announcements import Progress, next_commands, what_came_of_it
from atomrl.training.callbacks import Checkpoints, Interruption, Limits, ScoredStructures, save_tensors
from atomrl.training.crew import Crew
from atomrl.training.dashboards import Dashboard, Dashboards, TensorBoard
from atomrl.training.jsonl import JSONLLogger
from atomrl.training.requirements import check_code, check_needs
from atomrl.training.rl_module import build_module
from atomrl.training.run_directory import (
    CSV,
    REPRODUCER,
    check_resumable,
    find_run,
    forget_if_empty,
    fresh_path,
    how_to_resume,
    keep_traceback,
    open_run,
)
from atomrl.training.snapshots import Snapshots
from atomrl.training.weights_and_biases import WeightsAndBiases
from atomrl.util.device import choose_device, use_threads
from atomrl.util.errors import NonFiniteLossError, RankError, UserCodeError, UserError
from atomrl.util.processes import Launch, launched
from atomrl.workers.executor import Workers
from atomrl.workers.local import LocalWorkers, as_workers

log = logging.getLogger(__name__)

COPIES = 12
"""Weights, averaged weights, reference and two optimizer moments, in two checkpoints and one being written."""


def train(config: Config, name: str, workers: Workers | None = None, crew: Crew | None = None) -> Path:
    """Run an experiment to its end; returns the run directory.

    Args:
        config: validated.
        name: of the experiment, part of the default save_path.
        workers: who scores; if None local ones, as many as the configuration says, shared out among the processes of
            this host.
        crew: the processes that train together, entered; if None those that the environment names.

    Raises:
        UserError: see `launched`, `require_ready`, `build_module`, `check_resumable` and `open_run`.
        NonFiniteLossError: the loss is not finite; a reproducer was saved in the run directory.
        RankError: another process ended the run.
    """
    if crew is None:
        with Crew(launched()) as own:
            return train(config, name, workers, own)
    require_ready(config, crew.launch)
    folder = _trained(config, name, workers, crew)
    if crew.launch.rank == 0:
        print(next_commands(folder, read_config(folder / CONFIG), domain_of(config)))  # with the hub's commit
    return folder


def _trained(config: Config, name: str, workers: Workers | None, crew: Crew) -> Path:
    """What `train` does with a configuration that is ready, without the commands that may follow it."""
    launch = crew.launch
    workers = workers or LocalWorkers(launch.share(LocalWorkers(config.reward.workers).count))
    device = choose_device(config.device, launch)
    use_threads(config.threads)
    torch.manual_seed(config.seed)  # initial weights come from the backbone; this is for what a user adds
    with crew.connected(device, config.train.rank_timeout) as collective:
        folder, stopped = _train(config, name, workers, device, collective)
    if stopped is not None:
        raise SystemExit(stopped)
    return folder


def _train(
    config: Config, name: str, workers: Workers, device: torch.device, collective: Collective
) -> tuple[Path, int | None]:
    """Build, open the run directory, fit; returns it, and the exit code of a run that a signal stopped.

    Rank 0 checks and opens the directory. All read a checkpoint from it, so that it must be one that all hosts see.
    """
    first_rank = collective.rank == 0
    config = _from(config, collective.of_first(pinned(config.model.backbone) if first_rank else ""))
    place = Path(collective.of_first(config.save_path or str(fresh_path(name))))
    first = collective.of_first(check_resumable(place, config) if config.resume and first_rank else 0)
    if config.resume:
        find_run(place)
    module, model = build_module(config, workers, collective)
    try:
        if first_rank:
            assert isinstance(module.policy, torch.nn.Module)
            weights = sum(p.numel() * p.element_size() for p in module.policy.parameters())
            open_run(place, to_yaml(config), config.resume, COPIES * weights)
            left = max(0, config.dataloader.epoches - first)
            several = f", {collective.size} processes" if collective.size > 1 else ""
            warn_of_unseen([model], config.dataloader.context)
            print(f"{name}: {model.origin} on {device.type}{several}, {left} iterations -> {place}")
        try:
            return place, _fit(module, config, place, first, device, collective, workers)
        except UserCodeError as error:
            keep_traceback(place, error)
            raise
        finally:
            if first_rank:
                forget_if_empty(place)
    finally:
        module.close()


def train_and_evaluate(config: Config, name: str, command: str, crew: Crew | None = None) -> Path:
    """Train, then print and save the before/after table, if evaluation.samples asks for one.

    `command` is what a reader would type to get the same table. The judges are called in before the training, so that
    what they lack does not show at its end. Of several processes rank 0 evaluates, alone: the others are done then.
    """
    if crew is None:
        with Crew(launched()) as own:
            return train_and_evaluate(config, name, command, own)
    if not config.evaluation.samples or crew.launch.rank:
        return train(config, name, crew=crew)
    require_ready(config, crew.launch)
    config = _from(config, pinned(config.model.backbone))  # what is compared with is what training starts from
    domain, device = domain_of(config), choose_device(config.device, crew.launch)
    base = base_model(config)
    time_step = config.evaluation.time_step or config.model.time_step
    asked = config.dataloader.context
    plan = SamplePlan(config.evaluation.samples, time_step, config.evaluation.seed, asked=asked)
    require_asked(base, plan, f" (dataloader.context={asked}, which the table at the end is of too)")
    workers = as_workers(config.reward.workers)
    with domain.panel(config, base, workers) as panel:
        folder = _trained(config, name, workers if crew.launch.size == 1 else None, crew)
        models: dict[str, Model] = {"base": base, "trained": model_of(read_stored(str(folder / LATEST)), config)}
        kept = KeptSamples(folder / EVALUATION, repr(config.model))
        with kept.until_written(how_to_resume(folder, config)):
            judged = {label: judge(model, plan, panel, device, label, kept) for label, model in models.items()}
            report = compare(judged, domain.rewarded(config), panel, plan, command, folder / EVALUATION)
    print(report.text())
    print(f"table and {domain.noun} -> {folder / EVALUATION}")
    try:
        print(f"report -> {write_report([folder]).path}")
    except UserError as error:  # the run and its table are whole
        log.warning(f"no report: {error}; `atomrl report {folder}` makes it")
    print(next_commands(folder, config, domain))
    return folder


def _from(config: Config, backbone: str) -> Config:
    """A run that starts from this backbone."""
    return config.changed(model=config.model.changed(backbone=backbone))


def require_ready(config: Config, launch: Launch) -> None:
    """Refuse what shows before anything loads, and warn of keys that change nothing.

    Raises:
        UserError: a package, file or code is missing, or groups cannot be dealt out.
    """
    check_extras(config)
    check_needs(config)
    check_code(config)
    _check_groups(config, launch)
    warn_of_unread(config)
    warn_of_warmup(config)


def check_extras(config: Config) -> None:
    """Raise UserError for options whose package is not installed."""
    if config.wandb.enabled and importlib.util.find_spec("wandb") is None:
        raise UserError("wandb.enabled=true needs the package wandb: pip install 'atomrl[wandb]', or set it to false")


def warn_of_unread(config: Config) -> None:
    """Name the keys that the chosen objective does not read, all in one warning."""
    if unread := config.train.unread:
        named = ", ".join(f"train.{name}" for name in unread)
        log.warning(f"train.objective={config.train.objective} does not read {named}: these keys change nothing")


def warn_of_warmup(config: Config) -> None:
    """Say that the learning rate never reaches its peak."""
    warmup, iterations = config.train.warmup_steps, config.dataloader.epoches
    if warmup > iterations:
        log.warning(
            f"train.warmup_steps={warmup} exceeds dataloader.epoches={iterations}: the rate ends at "
            f"{iterations / warmup:.2g} of train.learning_rate"
        )


class _AsLaunched(LightningEnvironment):
    """One process to Lightning, however many there are: not what it makes of Slurm's variables, see `processes`."""

    def teardown(self) -> None:
        """Leave the environment as it is: a program may train again."""


def _fit(
    module: lightning.LightningModule,
    config: Config,
    folder: Path,
    first: int,
    device: torch.device,
    collective: Collective,
    workers: Workers,
) -> int | None:
    """Let Lightning drive the iterations; returns the exit code if all processes were asked to stop in between.

    To Lightning each process is alone: what they do together goes through the collective.
    """
    interruption, snapshots, started = Interruption(collective), Snapshots(), time.monotonic()
    checkpoints = Checkpoints(folder, config, snapshots, collective)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        table = folder / CSV if config.log.csv else None
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1 if device.index is None else [device.index],
            max_epochs=config.dataloader.epoches,
            default_root_dir=folder,
            logger=False if collective.rank else JSONLLogger(folder / METRICS, first, table),
            callbacks=[
                interruption,
                Limits(config, collective),
                checkpoints,
                *([] if collective.rank else _for_people(config, folder, first, workers, stack)),
            ],
            plugins=[snapshots, _AsLaunched()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,  # the prompts of each iteration are their own
        )
        try:
            trainer.fit(module, ckpt_path=folder / LATEST if config.resume else None, weights_only=True)
        except (SystemExit, RuntimeError, RankError):
            # Lightning turns Ctrl-C into an exit with code 1, or, between two iterations, into an error of its own
            # tear-down; SIGTERM, as of a batch system, ends a run after the iteration in which it comes.
            if interruption.code is None:
                raise
            _say_how_to_go_on(folder, config, collective)
            raise (KeyboardInterrupt if interruption.code == 130 else SystemExit(interruption.code)) from None
        except NonFiniteLossError as error:
            path = folder / REPRODUCER
            save_tensors(path, error.reproducer)
            raise NonFiniteLossError(f"{error}; the run stopped, {path} reproduces it", error.reproducer) from error
    if interruption.code is not None:
        _say_how_to_go_on(folder, config, collective)
    elif collective.rank == 0:
        done = trainer.current_epoch
        print(what_came_of_it(folder, config, checkpoints, done, time.monotonic() - started))
    return interruption.code


def _check_groups(config: Config, launch: Launch) -> None:
    """Raise UserError for groups that cannot be dealt out evenly."""
    counts = {"dataloader.sample_group_size": config.dataloader.sample_group_size}
    if config.validation.every and config.validation.groups is not None:
        counts["validation.groups"] = config.validation.groups
    for key, groups in counts.items():
        if groups % launch.size:
            raise UserError(
                f"{key}={groups} cannot be dealt evenly to {launch.size} processes, and a group is never split: make "
                "it a multiple of them"
            )


def _say_how_to_go_on(folder: Path, config: Config, collective: Collective) -> None:
    """Print it, once."""
    if collective.rank:
        return
    if (folder / LATEST).is_file():
        alone = collective.size == 1 or objects_of(config)
        launcher = "" if alone else "torchrun [its options as before] -m "
        print(f"\nstopped; continue with: {launcher}{how_to_resume(folder, config)}", flush=True)
    else:
        print(f"\nstopped before the first checkpoint; start again with: save_path={folder}", flush=True)


def _for_people(config: Config, folder: Path, first: int, workers: Workers, stack: ExitStack) -> list[Callback]:
    """What rank 0 shows of a training; all is closed with the stack."""
    domain = domain_of(config)
    exporter = stack.enter_context(domain.exporter(domain.formats[0], workers))
    boards: list[Dashboard] = []
    dashboards = Dashboards(boards, config.log.samples_every, domain, exporter)
    stack.callback(dashboards.close)  # before there are any: one that cannot be made leaves none open
    if config.wandb.enabled:
        boards.append(WeightsAndBiases(config, folder))
    if config.log.tensorboard:
        boards.append(TensorBoard(folder / "tensorboard", first))
    return [
        Progress(domain.shown, config.log.line_every),
        ScoredStructures(folder, exporter, domain.formats[0]),
        dashboards,
    ]
