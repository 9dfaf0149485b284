"""Models on fresh samples, side by side: what `atomrl.evaluate` and `atomrl evaluate` ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from atomrl.checkpoints.hub import is_hub_name
from atomrl.checkpoints.named import Named, named_model
from atomrl.checkpoints.shipped import BACKBONES
from atomrl.checkpoints.stored import Stored, read_named, read_stored
from atomrl.config import Config, as_trained
from atomrl.config.switches import OF_TRAINING
from atomrl.core.protocols import Model
from atomrl.core.stages import total_reward
from atomrl.core.steering import require_noise
from atomrl.domains import base_model, domain_for, domain_of, model_of
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import (
    KNOWN_SET,
    Report,
    SamplePlan,
    best_of,
    compare,
    drawn_by,
    judge,
    require_asked,
    warn_of_unseen,
)
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.panel import Judged, Panel
from atomrl.evaluation.rejection import draw_until_accepted
from atomrl.evaluation.steered import steered
from atomrl.library.evaluation_options import overridden, require_new_table
from atomrl.library.loading import DEFAULT_BACKBONE, EVALUATED, asking, sample_plan
from atomrl.sampling.chosen import about_reward, has_handed_over_code, require_number_of_draws, require_total
from atomrl.sampling.steering_options import SteeringOptions
from atomrl.training.run_directory import described_run
from atomrl.user_code.given import is_object
from atomrl.util.device import choose_device, use_threads
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers


@dataclass(frozen=True)
class ModelEvaluation:
    """Which models are judged, and how.

    Attributes:
        base: what others are compared with; None: what the run started from, or else the shipped model of molecules.
        trained: a run, or a model; None: the base is judged alone.
        samples: of each column; None: as documented.
        time_step: T of the walk; None: that of the domain.
        seed: of sizes and noise; None: as documented.
        best_of, reject, known: further columns; 0: none.
        steering: of another one, if it has particles.
        overrides: `key=value` each.
        output: folder for the tables.
        device: `auto`, `cpu` or `cuda`.
        keep: folder that keeps what is sampled and judged for other evaluations; None: none does.
        asked: {name: value} that conditional models are asked for; None: as the run's prompts ask.
    """

    base: str | Path | None
    trained: str | None
    samples: int | None
    time_step: int | None
    seed: int | None
    best_of: int
    steering: SteeringOptions
    reject: int
    known: int
    overrides: Sequence[str]
    output: Path
    device: str
    keep: Path | None = None
    asked: Mapping[str, str | float] | None = None

    def report(self, command: str, trust_code: bool, remedy: str) -> Report:
        """Sample, judge and write; what was drawn outlives an interruption.

        Args:
            command: what a reader types to get the same tables.
            trust_code: code that the trained run's config.yaml names may run.
            remedy: how to say so, for the error.

        Raises:
            UserError: as `evaluate`.
        """
        self._check()
        pair = self._models(trust_code, remedy)
        device, plan = choose_device(self.device), self._plan(pair)
        self._check_choosing(pair, plan)
        use_threads(pair.config.threads)
        require_writable(self.output, f"--output {self.output}")
        kept, judged = KeptSamples(self.output, sampler_of(pair.config), self.keep), {}
        domain, base, rewarded = pair.domain, pair.base, pair.rewarded()
        of_base, workers = self._for(base, plan), as_workers(pair.config.reward.workers)
        with domain.panel(pair.config, base, workers) as panel, kept.until_written(command):
            known = panel.known_samples(self.known, plan.seed) if self.known else None  # what is missing shows now
            judged["base"] = judge(base, of_base, panel, device, "base", kept)
            if self.reject:
                found = draw_until_accepted(base, of_base, self.reject, domain.accepts, device, kept)
                rejected = panel.judge(found.structures, kept, found.prompts)
                judged["base after rejection"] = replace(
                    rejected, drawn=found.drawn, model=drawn_by(base), asked=of_base.asked
                )
            if self.best_of:
                judged[f"base best of {self.best_of}"] = best_of(base, of_base, self.best_of, panel, device, kept)
            if particles := self.steering.particles:
                label = f"base steered with {particles} particles"
                judged[label] = self._steered(pair, of_base, panel, workers, device, kept)
            if pair.trained is not None:
                judged["trained"] = judge(pair.trained, self._for(pair.trained, plan), panel, device, "trained", kept)
            if known is not None:
                judged[KNOWN_SET] = replace(panel.judge(known, kept), drawn=0)
            return compare(judged, rewarded, panel, plan, command, self.output)

    def _steered(
        self, pair: Pair, plan: SamplePlan, panel: Panel, workers: Workers, device: torch.device, kept: KeptSamples
    ) -> Judged:
        """The base's samples, steered by the run's reward."""
        domain, base, config = pair.domain, pair.base, pair.config
        walk = self.steering.config(plan.time_step, plan.micro_batch_size)
        scored_by = None if has_handed_over_code(config) else repr(about_reward(config))
        with closing(domain.reward(config, base, workers)) as reward:
            score = partial(total_reward, reward, domain.stages(config, reward))
            return steered(base, plan, self.steering.particles, walk, score, panel, device, kept, scored_by)

    def _check_choosing(self, pair: Pair, plan: SamplePlan) -> None:
        """Refuse what cannot be chosen by a reward, or be steered, before anything is sampled.

        Raises:
            UserError: the reward is the dummy; there are more places than steps; the base walks without noise.
        """
        if any(self._by_reward.values()):
            require_total(pair.config)
        if self.steering.particles:
            require_noise(pair.base.policy(), self.steering.config(plan.time_step, plan.micro_batch_size))

    def _check(self) -> None:
        """Refuse numbers that mean nothing, and a folder that is in use.

        Raises:
            UserError: as said.
        """
        for name, number in (*self._by_reward.items(), ("--reject", self.reject)):
            require_number_of_draws(name, number, "for no such control")
        require_new_table(self.output, self.known)
        for name, number in self._by_reward.items():
            if number and self.trained is None:
                raise UserError(f"{name} {number} chooses by a training's reward: give the run with --trained")

    @property
    def _by_reward(self) -> dict[str, int]:
        """Options of the controls that a training's reward chooses, and their numbers."""
        return {"--best-of": self.best_of, "--steer": self.steering.particles}

    def _plan(self, pair: Pair) -> SamplePlan:
        """Which samples.

        Raises:
            UserError: a number that means nothing, or what one of the models cannot be asked for.
        """
        plan = sample_plan(pair.domain, self.samples, self.time_step, self.seed, EVALUATED)
        by_run = pair.config.dataloader.context  # empty, unless a run says it
        plan = asking(plan, (), by_run if self.asked is None else self.asked)
        models = [pair.base] if pair.trained is None else [pair.base, pair.trained]
        of_the_run = f" (dataloader.context={by_run} of the run; an empty --context, or context={{}}: values are drawn)"
        for model in models:
            require_asked(model, self._for(model, plan), of_the_run if self.asked is None else "")
        warn_of_unseen(models, plan.asked)
        return plan

    def _for(self, model: Model, plan: SamplePlan) -> SamplePlan:
        """What one of the models is asked: what only the run says, an unconditional model is not."""
        return replace(plan, asked={}) if self.asked is None and model.conditioning is None else plan

    def _models(self, trust_code: bool, remedy: str) -> Pair:
        """Load them.

        Raises:
            UserError: as `evaluate`.
        """
        found = None if self.trained is None else named_model(self.trained)
        name = str(self.base or _started_from(found, trust_code, remedy))
        if found is not None and is_object(name):
            run, tuned, _ = self._trained(found, None, name, trust_code, remedy)
            config = self._overridden(run)
            return Pair(domain_of(run), config, base_model(config), model_of(tuned, config), run)
        stored = read_stored(name)
        domain = domain_for(stored)
        config = as_trained(domain.name, stored.card)
        if found is None:
            config = self._overridden(config)
            return Pair(domain, config, model_of(stored, config), None, None)
        run, tuned, is_run = self._trained(found, domain, stored.origin, trust_code, remedy)
        of_base, config = (self._overridden(each) for each in (domain.beside_a_run(run, stored), run))
        return Pair(domain, config, model_of(stored, of_base), model_of(tuned, config), run if is_run else None)

    def _overridden(self, config: Config) -> Config:
        """How to sample and judge; on the device of this call, not of the run."""
        return overridden(config, self.overrides).changed(device=self.device)

    def _trained(
        self, found: Named, domain: Domain[Any, Any] | None, base: str, trust_code: bool, remedy: str
    ) -> tuple[Config, Stored, bool]:
        """What the trained model's run says, or the documented defaults; the model; and whether a run says it.

        Args:
            found: the trained model.
            domain: of the base; None: it is that of the run.
            base: where it is, for messages.
            trust_code: as of `report`.
            remedy: as of `report`.

        Raises:
            UserError: it is of another domain than the base, or there is no run to choose by the reward of.
        """
        if found.described is not None:
            config = described_run(found.described, trust_code, remedy)  # refuses code before it reads more
            if domain is not None and config.domain != domain.name:
                raise UserError(
                    f"--base {base} is a model of {domain.name}, --trained a run on {config.domain}: give "
                    f"--base {config.model.backbone}, which that run started from"
                )
            return config, read_named(found), True
        tuned = read_named(found)
        if domain is None or domain_for(tuned) is not domain:
            raise UserError(
                f"--base {base} is a model of {'nothing' if domain is None else domain.name}, --trained {self.trained} "
                f"one of {domain_for(tuned).name}: give two of one kind"
            )
        for asked, number in self._by_reward.items():
            if number:
                raise UserError(
                    f"{asked} {number} chooses by a training's reward, and {self.trained} is a model without its run: "
                    "give the run directory"
                )
        print(
            f"{self.trained} is a model without its run's config.yaml: no metric is marked as rewarded, and the "
            "judges are the documented ones, or those that you name"
        )
        return as_trained(domain.name, tuned.card), tuned, False


def sampler_of(config: Config) -> str:
    """What samples depend on beside weights, prompts and the walk; not what only a training reads."""
    training = {key.removeprefix("model.") for key in OF_TRAINING if key.startswith("model.")}
    return repr(config.model.model_dump(mode="json", exclude={"backbone", "time_step", *training}))


def _started_from(found: Named | None, trust_code: bool, remedy: str) -> str:
    """What a trained model is compared with if nothing is named: what its run started from, else the domain's default.

    Raises:
        UserError: as `described_run`, or the run was shared without that model.
    """
    if found is None:
        return DEFAULT_BACKBONE
    if found.described is None:
        return as_trained(domain_for(read_named(found)).name, {}).model.backbone
    base = described_run(found.described, trust_code, remedy).model.backbone
    if found.weights.is_dir() and base not in BACKBONES and not is_hub_name(base):
        raise UserError(
            f"{found.origin} was shared without {base}, which its run started from: say what to compare it with, by "
            "--base or base=..."
        )
    return base


@dataclass(frozen=True)
class Pair:
    """The models of an evaluation.

    Attributes:
        domain: of both.
        config: how they are sampled and judged.
        base: the first column.
        trained: another; None: there is none.
        run: the configuration that the other was trained with, whatever is overridden here; None: there is no run.
    """

    domain: Domain[Any, Any]
    config: Config
    base: Model
    trained: Model | None
    run: Config | None

    def rewarded(self) -> set[str]:
        """Metrics that the run was paid for, not what a reward typed here would pay for."""
        if self.run is None:
            return set()
        return self.domain.rewarded(self.run.changed(evaluation=self.config.evaluation))
