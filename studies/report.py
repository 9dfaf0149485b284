"""docs/results/<study>.md and <study>.svg out of a study's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atomrl.util.errors import UserError
from atomrl.util.files import write_whole
from studies import beside, curves, recorded, records
from studies.queue import duration
from studies.records import Record
from studies.steps import Plan, StudyStep, TrainedRun
from studies.steps import plan as steps_of
from studies.studies import Settings, Study
from studies.subjects import Further, Subject
from studies.tables import SeedResult

INTERVALS = (
    "Value [95 % interval], shares in %. Base, single seeds and controls: over samples ({intervals})."
    " Mean over training seeds: Student's t over the seeds' values, its denominator is the number of seeds; no interval"
    " stands where the seeds do not differ. *Apart*: the intervals of a seed and of the column it is compared with have"
    " no point in common. Rewarded rows were optimised in training."
)


EACH_SEED = "## Each seed"
"""What stands above it is worth a look on a terminal."""


def write(study: Study, planned: Plan, folder: Path, output: Path, command: str) -> Path:
    """Write both files; returns the path of the Markdown.

    All that they say of the trainings comes from the runs' own files: the YAML may have changed since.

    Args:
        study: what was run.
        planned: where its runs are.
        folder: that the queue ran in.
        output: folder of the two files.
        command: that repeats all of it.

    Raises:
        UserError: a file of the study is missing, or the evaluations do not belong into one table.
    """
    settings = recorded.settings(study, planned)
    plan = steps_of(study, settings, folder)
    subject, result = study.subject, SeedResult.read(plan.tables, plan.controls)
    further = {table.heading: _beside(plan, table) for table in settings.further}
    steps = {step: records.read(folder, step) for step in plan.steps}
    curves.draw({seed: run.metrics for seed, run in plan.runs.items()}, output / f"{study.name}.svg", subject.panels)
    parts = [
        f"# Study `{study.name}`\n",
        f"Written by `{command}`: change the study, not this file.\n",
        _head(study, settings, plan, result, steps),
        f"![Training curves, one line per seed]({study.name}.svg)\n",
        "## Before and after\n",
        result.main_table(),
        INTERVALS.format(intervals=subject.intervals) + "\n",
        _controls(subject, settings, plan, result),
        *(_further(heading, table, result, subject) for heading, table in further.items()),
        beside.section(study, result, folder.parent) if study.beside else "",
        f"{EACH_SEED}\n",
        "Value [95 % interval over samples] / denominator.\n",
        result.seed_table(),
        *(f"### {heading}\n\n{table.seed_table()}" for heading, table in further.items()),
        "## What it cost\n",
        f"{subject.cost_note} Sizes are drawn before sampling, with the same evaluation seed for every"
        " column, so training cannot change them; elements it can.\n",
        result.cost_table(subject),
        "## Conditions and steps\n",
        "\n".join(f"- {name}: {value}" for name, value in result.conditions.items()) + "\n",
        "\n".join(_step_line(step, record) for step, record in steps.items()) + "\n",
    ]
    path = output / f"{study.name}.md"
    write_whole(path, "\n".join(part for part in parts if part))
    return path


def _beside(plan: Plan, table: Further) -> SeedResult:
    """A further table of every evaluation."""
    tables = {seed: path.with_name(table.file) for seed, path in plan.tables.items()}
    return SeedResult.read(tables, [(n, path.with_name(table.file)) for n, path in plan.controls])


def _further(heading: str, table: SeedResult, main: SeedResult, subject: Subject) -> str:
    """A further table: who judged, what differs from the main one, the means, the failures."""
    changed = [f"{name}: {value}" for name, value in table.conditions.items() if main.conditions.get(name) != value]
    notes = [f"{table.base.samples:,} {subject.noun} a column; {subject.physics} by {table.evaluator}", *changed]
    parts = [f"## {heading}\n", "\n".join(f"- {note}" for note in notes) + "\n", table.main_table()]
    if failures := table.failure_table(subject):
        parts += ["Without an answer:\n", failures]
    return "\n".join(parts)


def _head(
    study: Study, settings: Settings, plan: Plan, result: SeedResult, steps: dict[StudyStep, Record | None]
) -> str:
    """Seeds, counts, judge, cost, commit."""
    changed = f" with `{' '.join(study.overrides)}`" if study.overrides else ""
    trainings = ", ".join(f"{seed}: {duration(_trained_seconds(run))}" for seed, run in plan.runs.items())
    commits = list(dict.fromkeys(commit for record in steps.values() if record for commit in record.commits))
    lines = [
        f"training seeds {_listed(study.seeds)}; `src/atomrl/conf/{study.config}.yaml`{changed}; backbone"
        f" `{settings.backbone}`",
        f"each training scored {settings.bill(study.subject.noun)}",
        f"evaluation: {result.base.samples:,} fresh {study.subject.noun} a column, T = {result.time_step}, evaluation"
        f" seed {_listed(result.seeds)}; profile `{result.profile}`, {study.subject.physics} by {result.evaluator}",
        f"time in rollouts and updates by seed: {trainings}",
        f"commit {_listed(commits) if commits else 'not recorded'}",
    ]
    if different := recorded.in_words(recorded.differences(study, plan)):
        lines.append(
            f"**the trainings were not alike**, the settings here are those of seed {study.seeds[0]}: {different}"
        )
    try:
        changed_since = recorded.in_words(recorded.changed_since(study, plan))
    except UserError as error:  # what the runs did is known all the same
        changed_since = f"it is refused ({error})"
    if changed_since:
        lines.append(f"`{study.config}.yaml` would train otherwise today: {changed_since}")
    if result.base_shift:
        lines.append(
            "**the base's values differ between the evaluations**, by up to"
            f" {100 * result.base_shift:.2g} % of a value: they used other weights or another number of threads; the"
            " table shows the first seed's"
        )
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _controls(subject: Subject, settings: Settings, plan: Plan, result: SeedResult) -> str:
    """What best-of-N means here, and what it scored."""
    if not plan.controls:
        return ""
    budget = settings.draws(result.base.samples)
    scored = "; ".join(f"N = {n}: {n * result.base.samples:,} scorings" for n, _ in plan.controls)
    how = f"each of its {settings.scored:,} {subject.noun} once"
    if settings.places:
        how = f"its {settings.scored:,} {subject.noun} {settings.scorings:,} times, at the end of a walk and on the way"
    return (
        f"Best of N: N {subject.noun} are drawn from the base for each one that is kept, all N of one size, and the one"
        f" with the highest total reward of the training is kept ({scored}). *The same scoring budget* means: training"
        f" scores {how}, so the control may score as many for its"
        f" {result.base.samples:,}, N = ceil({settings.scorings:,} / {result.base.samples:,}) = {budget}. That bill is"
        f" for these {subject.noun} alone: the trained model goes on without any scoring, the control pays N again for"
        f" each further {subject.one}. The base does not depend on the training seed: each control ran once."
        + (f" {subject.best_of}\n" if subject.best_of else "\n")
    )


def _trained_seconds(run: TrainedRun) -> float:
    """Time in rollouts and updates; what a killed run did again counts once."""
    return float(sum(row["seconds_rollout"] + row["seconds_update"] for row in curves.read_log(run.metrics)))


def _step_line(step: StudyStep, record: Record | None) -> str:
    took = "" if record is None or not record.seconds else f", {duration(record.seconds)}"
    return f"- {step.name}{took}: `{step.command}`"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
