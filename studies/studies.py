"""Which experiments `make results` runs, and what their configuration says about the work ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from atomrl.config.shaping import ShapingOptions
from atomrl.util.errors import UserError
from studies.subjects import CRYSTALS, MOLECULES, Further, Subject

SET_BY_THE_QUEUE = ("seed", "save_path", "resume", "experiment")
SET_BY_EVALUATE = ("evaluation.samples", "evaluation.time_step", "evaluation.seed")
EXPERIMENTS = "experiment/"
"""Folder of `atomrl.conf` whose configurations `experiment=` names."""


def words_of(config: str) -> tuple[str, ...]:
    """Words of `atomrl train` that choose a YAML of `atomrl.conf`."""
    if config.startswith(EXPERIMENTS):
        return (f"experiment={config.removeprefix(EXPERIMENTS)}",)
    return "--config-name", config


@dataclass(frozen=True)
class Evaluation:
    """`atomrl evaluate` after each training.

    Attributes:
        samples: fresh samples per column.
        time_step: T of the walk.
        seed: of sizes and noise; no training and no demo uses it.
        best_of: controls to draw from the base, N each; None is the N at which the control scores at least as often as
            one training did.
    """

    samples: int = 1000
    time_step: int = 50
    seed: int = 2_000_003
    best_of: tuple[int | None, ...] = (4, None)


@dataclass(frozen=True)
class Study:
    """One experiment, repeated with several seeds.

    Attributes:
        name: on the command line and of the files in docs/results/.
        config: YAML of `atomrl.conf`.
        subject: what its samples are.
        seeds: of the trainings.
        overrides: `key=value` for every training.
        evaluation: how to evaluate; None: `atomrl train` does it itself (`evaluation.samples`).
        beside: another study, whose seeds the report compares with this one's.
    """

    name: str
    config: str
    subject: Subject
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: tuple[str, ...] = ()
    evaluation: Evaluation | None = None
    beside: str | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {list(self.seeds)}: give one or more different whole numbers")
        for override in self.overrides:
            key = override.partition("=")[0].lstrip("+")
            if key in SET_BY_THE_QUEUE:
                raise UserError(f"{override}: the queue sets {key} itself; use --seeds or --folder")
            if self.evaluation is not None and key in SET_BY_EVALUATE:
                raise UserError(f"{override}: this study is evaluated by `atomrl evaluate`; use --samples, --time-step")


@dataclass(frozen=True)
class Settings:
    """What the queue and the report need to know of a training's configuration.

    Attributes:
        iterations, groups, each: iterations, groups per iteration, samples per group.
        places: of each walk, besides its end, at which a sample is scored: those of shaped rewards.
        backbone, device: as in the configuration.
        samples, time_step: of the evaluation that `atomrl train` ends with; 0 samples: none.
        further: tables that an evaluation has beside the main one.
    """

    iterations: int
    groups: int
    each: int
    backbone: str
    device: str
    samples: int
    time_step: int
    further: tuple[Further, ...] = ()
    places: int = 0

    @property
    def scored(self) -> int:
        """Samples that one training scores."""
        return self.iterations * self.groups * self.each

    @property
    def scorings(self) -> int:
        """What the force field is asked in one training: each sample, at the end of its walk and on the way."""
        return self.scored * (1 + self.places)

    def bill(self, noun: str) -> str:
        """What one training scored, in words."""
        on_the_way = f"; with {self.places} places on the way, {self.scorings:,} scorings" if self.places else ""
        return f"{self.scored:,} {noun}: {self.iterations} iterations x {self.groups} groups x {self.each}{on_the_way}"

    def draws(self, samples: int) -> int:
        """N at which best-of-N for so many samples scores at least as often as one training."""
        return -(-self.scorings // samples)


FED_GRPO = ("demo_fed_grpo", MOLECULES)

AS_IN_THE_DEMO = ("evaluation.time_step=100",)
"""What makes three ways to spend the demo's 7,680 calls of GFN2-xTB on FED-GRPO comparable with it."""

RETURN_TO_GO = (
    "reward.shaping.enabled=true",
    "reward.shaping.mode=pbrs_return_to_go",
    "reward.shaping.gamma=1.0",
    "reward.shaping.scheduler.mode=uniform",
    "reward.shaping.scheduler.skip_prefix=30",
    "reward.shaping.scheduler.uniform_stride=5",
)
"""Of the energy, at four places besides the end: five calls for each molecule."""

SHARED_PREFIX = ("model.share_initial_noise=true", "model.skip_prefix=25")

STUDIES = {
    study.name: study
    for study in (
        Study("molecules", "qm9_long", MOLECULES, evaluation=Evaluation()),
        Study("demo", "demo", MOLECULES),
        Study("demo_fed_grpo", "demo_fed_grpo", MOLECULES),
        Study("fed_grpo", *FED_GRPO, overrides=("dataloader.epoches=60", *AS_IN_THE_DEMO), beside="demo"),
        Study(
            "fed_grpo_pbrs",
            *FED_GRPO,
            overrides=("dataloader.epoches=12", *AS_IN_THE_DEMO, *RETURN_TO_GO),
            beside="demo",
        ),
        Study(
            "fed_grpo_prefix",
            *FED_GRPO,
            overrides=("dataloader.epoches=60", *AS_IN_THE_DEMO, *SHARED_PREFIX),
            beside="demo",
        ),
        Study("crystals", "experiment/prototypes/rl_long", CRYSTALS, evaluation=Evaluation()),
        Study(
            *("crystals_no_diversity", "experiment/prototypes/rl_no_diversity", CRYSTALS),
            evaluation=Evaluation(best_of=()),  # what the base can do by choosing stands in the report of `crystals`
            beside="crystals",
        ),
        Study("crystals_demo", "experiment/prototypes/rl_dng", CRYSTALS),
        Study(
            *("crystals_demo_no_diversity", "experiment/prototypes/rl_dng_no_diversity", CRYSTALS),
            beside="crystals_demo",
        ),
        Study("crystals_awm", "experiment/prototypes/rl_awm", CRYSTALS, beside="crystals_demo"),
        Study("crystals_demo_grpo", "experiment/prototypes/rl_dng_grpo", CRYSTALS),
        Study(
            *("crystals_demo_grpo_no_diversity", "experiment/prototypes/rl_no_diversity", CRYSTALS),
            overrides=(
                *("dataloader.epoches=66", "evaluation.samples=500"),
                *("evaluation.relaxed=0", "evaluation.second_judge=null"),
            ),
            beside="crystals_demo_grpo",
        ),
    )
}


def read_settings(study: Study) -> Settings:
    """The part of today's configuration that the queue needs to plan; `atomrl train` checks all of it.

    What the runs did is in their own config.yaml (`studies.recorded`). Hydra is not asked: a queue that waits for hours
    should be light.

    Raises:
        UserError: an override is no YAML, a count is no positive whole number, rewards cannot be shaped so, the
            trainings may end early, or nothing would evaluate them.
    """
    text = (files("atomrl.conf") / f"{study.config}.yaml").read_text()
    # Hydra's prefixes + and ++ mean nothing here.
    try:
        changes = OmegaConf.from_dotlist([override.lstrip("+") for override in study.overrides])
        config = OmegaConf.merge(OmegaConf.create(text), changes)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        words = " ".join(study.overrides)
        raise UserError(f"{words}: cannot be read ({str(error).strip().splitlines()[0]})") from error
    assert isinstance(config, DictConfig)
    if metric := OmegaConf.select(config, "early_stop_metric"):
        raise UserError(f"early_stop_metric={metric}: the trainings of a study have the same length; leave it out")
    settings = settings_of(config, study.subject)
    if study.evaluation is None and not settings.samples:
        raise UserError(
            f"evaluation.samples=0: the report of the study {study.name} is made of the evaluations that its trainings "
            "end with; leave it out"
        )
    return settings


def settings_of(config: DictConfig, subject: Subject) -> Settings:
    """What a configuration says of a training of some kind of sample; raises as `read_settings`."""
    return Settings(
        iterations=_count(config, "dataloader.epoches"),
        groups=_count(config, "dataloader.sample_group_size"),
        each=_count(config, "dataloader.each_prompt_sample"),
        backbone=str(OmegaConf.select(config, "model.backbone")),
        device=str(OmegaConf.select(config, "device", default="auto")),
        samples=_count(config, "evaluation.samples", least=0),
        time_step=_count(config, "model.time_step")
        if OmegaConf.select(config, "evaluation.time_step") is None
        else _count(config, "evaluation.time_step"),
        further=tuple(table for table in subject.further if OmegaConf.select(config, table.key)),
        places=_places(config),
    )


def _places(config: DictConfig) -> int:
    """How many places of a walk are scored on the way."""
    shaping = OmegaConf.select(config, "reward.shaping")
    said: Any = {} if shaping is None else OmegaConf.to_container(shaping)
    options = ShapingOptions.read(said)
    steps = _count(config, "model.time_step")
    return len(options.scheduler.schedule(steps).before_end(steps)) if options.enabled else 0


def whole_numbers(text: str, what: str) -> tuple[int, ...]:
    """Comma-separated whole numbers, as in `--seeds 0,1,2`.

    Raises:
        UserError: they are something else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UserError(f"{what} {text}: give whole numbers with commas between them, like 0,1,2")
    return tuple(int(word) for word in words)


def controls(words: Sequence[str]) -> tuple[int | None, ...]:
    """`--best-of` as `Evaluation.best_of`: numbers above 1, and `budget` for None."""
    found = tuple(None if word == "budget" else whole_numbers(word, "--best-of")[0] for word in words)
    if len(set(found)) < len(found) or any(n is not None and n < 2 for n in found):
        raise UserError(f"--best-of {','.join(words)}: give different numbers above 1, or the word budget")
    return found


def _count(config: DictConfig, key: str, least: int = 1) -> int:
    value = OmegaConf.select(config, key)
    if not isinstance(value, int) or value < least:
        raise UserError(f"{key}={value}: must be a whole number of at least {least}")
    return value
