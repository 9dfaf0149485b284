"""Fresh samples from a base and a trained model, judged side by side; what judges them is the domain's."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from atomrl.core.prompts import PromptPlan, SizeDistribution, cut_into_buckets
from atomrl.core.protocols import DiffusionPolicy, Model
from atomrl.core.records import Prompts, Structures
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.evaluation.definition import DrawnBy, Scorecard
from atomrl.evaluation.kept_samples import KeptBatches, KeptSamples, digest_of
from atomrl.evaluation.panel import Judged, Panel
from atomrl.evaluation.sample_table import write_sample_table
from atomrl.evaluation.table import Column, Comparison
from atomrl.evaluation.table_text import as_text
from atomrl.policies.own import asked_policy
from atomrl.util.errors import UserError, hinted
from atomrl.util.files import write_whole
from atomrl.util.progress import bar

log = logging.getLogger(__name__)

CPU = torch.device("cpu")

TABLES = "evaluation.md"
"""The file that an evaluation writes last."""

JSON, FURTHER = "evaluation.json", "evaluation_{}.json"
"""The main table for programs, and the others by their titles."""

SAMPLES = "evaluation.parquet"
"""A row per sample."""

KNOWN_SET = "known set"
"""Heading of the column of known samples."""


@dataclass(frozen=True)
class SamplePlan:
    """Which samples to draw.

    Attributes:
        count: samples.
        time_step: T.
        seed: of sizes and noise; the same for every model that is compared.
        micro_batch_size: samples that the sampler sees at once.
        sizes: atoms, of which each is drawn equally often; empty: as in the model's histogram.
        asked: {name: value} that a conditional model is asked for; it draws the others.
        share_initial_noise, skip_prefix: what the samples of a size share, as in `RolloutConfig`.

    Raises:
        UserError: a prefix that leaves nothing to walk, or that nobody shares.
    """

    count: int
    time_step: int
    seed: int
    micro_batch_size: int = 64
    sizes: tuple[int, ...] = ()
    asked: Mapping[str, str | float] = field(default_factory=dict)
    share_initial_noise: bool = False
    skip_prefix: int = 0

    def __post_init__(self) -> None:
        self.rollout(self.micro_batch_size)

    def rollout(self, at_once: int) -> RolloutConfig:
        """How to walk, with at most so many samples in the sampler; nothing is kept for a training."""
        return RolloutConfig(
            time_step=self.time_step,
            micro_batch_size=at_once,
            share_initial_noise=self.share_initial_noise,
            skip_prefix=self.skip_prefix,
            train_steps=0,
        )


@dataclass(frozen=True)
class Report:
    """The tables of an evaluation.

    Attributes:
        main: what `evaluation.json` holds.
        further: others by title, e.g. of relaxed samples or of a second judge.
    """

    main: Comparison
    further: Mapping[str, Comparison]

    def markdown(self) -> str:
        """All tables, the further ones under their titles."""
        return "\n".join(
            [self.main.markdown(), *(f"## {title}\n\n{table.markdown()}" for title, table in self.further.items())]
        )

    def _repr_markdown_(self) -> str:
        """For a notebook."""
        return self.markdown()

    def text(self) -> str:
        """The same for a terminal."""
        return "\n".join(
            [as_text(self.main), *(f"{title}:\n\n{as_text(table)}" for title, table in self.further.items())]
        )


def sample(
    model: Model, plan: SamplePlan, device: torch.device, description: str = "sample", kept: KeptSamples | None = None
) -> Structures:
    """Draw samples; sizes from the model's histogram. Rows are in order of size.

    Args:
        model: to sample.
        plan: which samples.
        device: to sample on; the samples come back on the CPU.
        description: for the progress bar.
        kept: batches of an evaluation that was stopped, which are not drawn again; new ones are added.
    """
    return draw(model, plan, 1, device, description, kept)[1]


def judge(
    model: Model, plan: SamplePlan, panel: Panel, device: torch.device, description: str, kept: KeptSamples
) -> Judged:
    """Draw samples as `sample` does, and judge them."""
    prompts, structures = draw(model, plan, 1, device, description, kept)
    return replace(panel.judge(structures, kept, prompts), model=drawn_by(model), asked=plan.asked)


def best_of(
    model: Model, plan: SamplePlan, n: int, panel: Panel, device: torch.device, kept: KeptSamples | None = None
) -> Judged:
    """The control: draw n times as many samples and keep the best of each n by the training's total reward.

    Every block of n shares a size, drawn as for the other columns, so that the sizes stay comparable.
    """
    prompts, structures = draw(model, plan, n, device, f"best of {n}", kept)
    best = panel.judge_best(structures, prompts, n, kept)
    drawn = len(prompts)
    return replace(best, drawn=drawn, scorings=drawn, model=drawn_by(model), asked=plan.asked)


def drawn_by(model: Model) -> DrawnBy:
    """What a table says of the model that drew its samples."""
    policy = model.policy()
    assert isinstance(policy, torch.nn.Module)
    return DrawnBy(model.origin, digest_of(policy.state_dict(), ""))


def draw(
    model: Model, plan: SamplePlan, each: int, device: torch.device, description: str, kept: KeptSamples | None = None
) -> tuple[Prompts, Structures]:
    """Draw `each` samples of every size that the plan draws, with a progress bar; both records are on the CPU."""
    policy, prompts = ready(model, plan, each, device)
    return draw_prompts(policy, prompts, plan, max(each, plan.micro_batch_size), description, kept)


def draw_prompts(
    policy: DiffusionPolicy,
    prompts: Prompts,
    plan: SamplePlan,
    at_once: int,
    description: str,
    kept: KeptSamples | None = None,
) -> tuple[Prompts, Structures]:
    """What `draw` does, for prompts that are given; at most `at_once` samples are in the sampler."""
    config = plan.rollout(at_once)
    batches = cut_into_buckets(prompts, config.micro_batch_size)
    assert isinstance(policy, torch.nn.Module)
    before = None if kept is None else kept.batches(policy, prompts, config)
    structures = in_batches(batches, partial(structures_of, policy, config=config), description, before)
    return Prompts.concatenate(batches).to(CPU), structures


def in_batches(
    batches: Sequence[Prompts], make: Callable[[Prompts], Structures], description: str, before: KeptBatches | None
) -> Structures:
    """What is made of each batch, one after another, with a progress bar.

    Args:
        batches: which nothing cuts again.
        make: makes the structures of one.
        description: for the progress bar.
        before: batches that are not made again; new ones are added.
    """
    parts = []
    with bar(range(0), description, total=sum(map(len, batches))) as progress:
        for index, batch in enumerate(batches):
            fresh = partial(make, batch)
            parts.append(fresh() if before is None else before.get(index, fresh))
            progress.update(len(batch))
    return Structures.concatenate(parts)


def ready(model: Model, plan: SamplePlan, each: int, device: torch.device) -> tuple[DiffusionPolicy, Prompts]:
    """The model's policy on a device, and prompts for `each` samples of every size that the plan draws.

    Raises:
        UserError: see `prompt_plan`.
    """
    prompts = prompt_plan(model, plan, each).prompts(0).to(device)
    return ready_policy(model, device), prompts


def ready_policy(model: Model, device: torch.device) -> DiffusionPolicy:
    """The model's policy on a device."""
    policy = model.policy()
    assert isinstance(policy, torch.nn.Module)
    policy.to(device).eval()
    return policy


def prompt_plan(model: Model, plan: SamplePlan, each: int) -> PromptPlan:
    """Prompts for `each` samples of every size that the plan draws.

    Raises:
        UserError: the model has no sample of one of the sizes in its histogram; it is not conditioned on what the plan
            asks for, or on something that nothing says how to ask for.
    """
    if strange := [size for size in plan.sizes if not model.sizes.get(size)]:
        known = sorted(size for size, count in model.sizes.items() if count)
        raise UserError(
            f"{model.origin} was trained on no sample of {', '.join(map(str, strange))} atoms: its sizes are "
            f"{', '.join(map(str, known))}"
        )
    if plan.asked and model.conditioning is None:
        raise UserError(
            f"{model.origin} takes no value for {', '.join(plan.asked)}: it is not conditional; leave it out"
        )
    conditioning = None if model.conditioning is None else model.conditioning.asking(plan.asked)
    sizes = dict.fromkeys(plan.sizes, 1) or model.sizes
    return PromptPlan(SizeDistribution(sizes), plan.count, each, plan.seed, conditioning)


def require_asked(model: Model, plan: SamplePlan, hint: str) -> None:
    """Refuse what a model cannot be asked for, before anything that takes long.

    Args:
        model: that shall draw the samples.
        plan: of these.
        hint: where what is asked for comes from, and what to do, for the error.

    Raises:
        UserError: see `prompt_plan`.
    """
    with hinted(hint if plan.asked else ""):
        prompt_plan(model, plan, 1)


def warn_of_unseen(models: Sequence[Model], asked: Mapping[str, str | float]) -> None:
    """Say what conditional models are asked for and were not trained on, a line each.

    Raises:
        UserError: what one of them cannot be asked for.
    """
    asking = [model.conditioning.asking(asked) for model in models if model.conditioning is not None]
    for line in dict.fromkeys(line for one in asking for line in one.unseen()):
        log.warning(line)


def structures_of(policy: DiffusionPolicy, prompts: Prompts, config: RolloutConfig) -> Structures:
    """What the policy makes of the prompts, on the CPU."""
    return rollout(asked_policy(policy), prompts, config).structures.to(CPU)


def compare(
    judged: Mapping[str, Judged], rewarded: set[str], panel: Panel, plan: SamplePlan | None, command: str, folder: Path
) -> Report:
    """Write evaluation.md, evaluation.json, evaluation.parquet and the samples of every column into a folder.

    Args:
        judged: by the column's heading; the first is what the others are compared with.
        rewarded: metrics that the training was paid for; a table marks those of them that it has.
        panel: that judged; writes the samples.
        plan: of the samples; None: no model drew any of them.
        command: what a reader types to get the same table.
        folder: is made if it is not there. Tables of an earlier evaluation in it are removed: those of a run that went
            on are of other weights.
    """
    seeds, time_step = ((), None) if plan is None else ((plan.seed,), plan.time_step)

    def columns(metrics: Mapping[str, Scorecard[Any]]) -> list[Column]:
        """Of one table."""
        return [
            Column(
                *(label, of_one, seeds, command, time_step),
                *(verdict.drawn, verdict.scorings, verdict.source, verdict.model, verdict.asked),
            )
            for label, of_one in metrics.items()
            for verdict in (judged[label],)
        ]

    def table(metrics: Mapping[str, Scorecard[Any]]) -> Comparison:
        """Of some metrics of each column; rows for what was rewarded may lack."""
        known = set.intersection(*(set(of_one.definitions) for of_one in metrics.values()))
        return Comparison.of(columns(metrics), rewarded & known)

    main = table({label: verdict.metrics for label, verdict in judged.items()})
    further = {
        title: table({label: verdict.further[title] for label, verdict in judged.items() if title in verdict.further})
        for title in dict.fromkeys(title for verdict in judged.values() for title in verdict.further)
    }
    report = Report(main, further)
    if (folder / JSON).is_file():
        for path in (folder / TABLES, *folder.glob(FURTHER.format("*"))):
            path.unlink(missing_ok=True)
    for label, verdict in judged.items():
        panel.write(folder, in_file_name(label), verdict)
    panel.draw(folder, judged)
    rows = {label: {**panel.columns(verdict), **verdict.about} for label, verdict in judged.items()}
    write_sample_table(folder / SAMPLES, rows, _about(report, command))
    write_whole(folder / JSON, report.main.json_text())
    for title, comparison in report.further.items():
        write_whole(folder / FURTHER.format(in_file_name(title)), comparison.json_text())
    write_whole(folder / TABLES, report.markdown())
    return report


def in_file_name(heading: str) -> str:
    """A heading, of a column or of a table, as the names of its files have it."""
    return re.sub(r"[ /]", "_", heading)


def _about(report: Report, command: str) -> dict[str, Any]:
    """What the verdicts on single samples depend on."""

    def depends_on(table: Comparison) -> dict[str, Any]:
        metrics = table.columns[0].metrics
        return {"profile": metrics.profile, "evaluator": metrics.evaluator, "conditions": dict(metrics.conditions)}

    further = {title: depends_on(table) for title, table in report.further.items()}
    return {**depends_on(report.main), "command": command, "further": further}
