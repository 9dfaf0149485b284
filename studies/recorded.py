"""What the runs of a study were trained with: each one's own config.yaml, whatever the package's YAML says today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from atomrl.config import Config, load_config, read_config
from atomrl.training.changed_settings import AROUND, changes
from atomrl.util.errors import UserError
from studies.steps import Plan, TrainedRun
from studies.studies import Settings, Study, read_settings, settings_of

Differences = Mapping[str, Mapping[str, Any]]
"""{key: {who: value}} of what differs between configurations."""

OF_A_SEED = "seed {}"
TODAY = "today's YAML"


def configurations(runs: Mapping[int, TrainedRun]) -> dict[int, Config]:
    """The configuration of each run that has one, by training seed.

    Raises:
        UserError: one cannot be read.
    """
    return {seed: read_config(run.config) for seed, run in runs.items() if run.config.is_file()}


def settings(study: Study, plan: Plan) -> Settings:
    """The settings of a study's first run; `differences` says whether the others have them too.

    A further table that an override leaves out is not asked for. The name of a model on the hub, whose commit a run
    notes, and the device are those of the queue's commands.

    Raises:
        UserError: a run of the study has no configuration, so that nobody knows what it did.
    """
    found = configurations(plan.runs)
    for seed, run in plan.runs.items():
        if seed not in found:
            raise UserError(f"{run.config}: no such file; run the queue without --only-report")
    recorded = settings_of(_tree(found[study.seeds[0]]), study.subject)
    typed = OmegaConf.from_dotlist([override.lstrip("+") for override in study.overrides])
    left_out = {
        table for table in recorded.further if _named(typed, table.key) and not OmegaConf.select(typed, table.key)
    }
    now = read_settings(study)
    return replace(
        recorded,
        further=tuple(table for table in recorded.further if table not in left_out),
        backbone=now.backbone if _pinned(recorded.backbone, now.backbone) else recorded.backbone,
        device=now.device,
    )


def differences(study: Study, plan: Plan) -> Differences:
    """What the runs of a study do not agree in, beside their seeds and where they ran."""
    return _compared({OF_A_SEED.format(seed): config for seed, config in configurations(plan.runs).items()})


def changed_since(study: Study, plan: Plan) -> Differences:
    """What a study would be trained with today, where that is not what its first run was trained with."""
    first = study.seeds[0]
    before = configurations({first: plan.runs[first]})[first]
    return _compared({OF_A_SEED.format(first): before, TODAY: load_config(study.config, study.overrides)})


def require_alike(study: Study, plan: Plan) -> None:
    """Refuse to go on with a study whose runs would not be one study.

    What is still to be trained will have today's configuration.

    Raises:
        UserError: runs that have begun differ from each other or from those to come.
    """
    runs = plan.runs.items()
    begun = configurations({seed: run for seed, run in runs if run.checkpoint.is_file()})  # others start again
    named = {OF_A_SEED.format(seed): config for seed, config in begun.items()}
    if not all(run.whole() for _, run in runs):
        named[TODAY] = load_config(study.config, study.overrides)
    if found := _compared(named):
        raise UserError(
            f"the runs of the study {study.name} differ in {in_words(found)}: give the settings that they began with, "
            "or another --folder"
        )


def in_words(found: Differences) -> str:
    """`dataloader.epoches (60: seed 0, seed 1; 30: seed 2); ...`."""
    return "; ".join(f"{key} ({_by_value(values)})" for key, values in found.items())


def _by_value(values: Mapping[str, Any]) -> str:
    owners: dict[str, list[str]] = {}
    for who, value in values.items():
        owners.setdefault(str(value), []).append(who)
    return "; ".join(f"{value}: {', '.join(names)}" for value, names in owners.items())


def _compared(configs: Mapping[str, Config]) -> Differences:
    """What any two of some configurations differ in, with the value of each."""
    (first, *others) = configs.values() if configs else (None,)
    if first is None:
        return {}
    keys = dict.fromkeys(
        key
        for other in others
        for key, (one, another) in changes(first, other).items()
        if _counts(key) and not _pinned(one, another)
    )
    return {key: {who: OmegaConf.select(_tree(config), key) for who, config in configs.items()} for key in keys}


def _counts(key: str) -> bool:
    """Whether a key says what a run does: not its seed, nor where it ran; the table at its end is a result."""
    elsewhere = AROUND - {"evaluation"} | {"seed"}
    return not any(key == name or key.startswith(f"{name}.") for name in elsewhere)


def _pinned(one: Any, another: Any) -> bool:
    """Whether a run names the commit of a model on the hub that a YAML leaves open."""
    if not str(one).startswith("hub:"):
        return False
    from atomrl.checkpoints.hub import pins  # noqa: PLC0415 - torch, which hours of waiting do not need

    return pins(one, another)


def _tree(config: Config) -> DictConfig:
    return OmegaConf.create(config.model_dump())


def _named(typed: DictConfig, key: str) -> bool:
    """Whether an override names a key, be it as null."""
    section, _, name = key.rpartition(".")
    inner = OmegaConf.select(typed, section)
    return inner is not None and name in inner
