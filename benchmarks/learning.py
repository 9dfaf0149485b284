"""What learns how fast: objectives beside best-of-N, by scorings and by calls of the network.

Each arm is a training of the same prompts and reward by another objective, or by the same with one option changed. Best
of N needs no training: N samples of one size are drawn from the base and scored for each that is kept. The arms run as
steps of a queue that goes on where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atomrl.util.files import write_json, write_whole
from benchmarks.best_of_draws import STEERED, cost
from benchmarks.learning_arms import COMPARISONS, WINDOW, Arm, Comparison
from benchmarks.learning_plot import draw
from studies import records
from studies.curves import read_log
from studies.queue import Queue, duration
from studies.steps import StudyStep, TrainedRun, threads

REACH = ("best of 2", "best of 4")
"""Levels that arms are asked for."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lines:
    """A file of one JSON line for each iteration."""

    path: Path
    iterations: int

    def whole(self) -> bool:
        """Whether all lines are there."""
        return self.share() >= 1

    def share(self) -> float:
        """Of the lines; one that a kill cut short does not count."""
        return min(1.0, self.path.read_text().count("\n") / self.iterations) if self.path.is_file() else 0.0

    def continuation(self) -> tuple[str, ...]:
        """The same words: the step counts its lines."""
        return ()


@dataclass(frozen=True)
class Chosen:
    """A way to choose from the base.

    Attributes:
        name: of its row.
        value: mean of the measure.
        scorings, calls: for each sample that is kept.
    """

    name: str
    value: float
    scorings: int
    calls: int


@dataclass(frozen=True)
class Curve:
    """What one training did.

    Attributes:
        arm: which.
        seed: of the training.
        values: of the measure, by iteration.
        scorings: after each iteration, so many samples have been scored.
        calls: of the network per scored sample.
        gradient: largest norm before the clip.
        minutes: in rollouts and updates.
    """

    arm: Arm
    seed: int
    values: Array
    scorings: Array
    calls: float
    gradient: float
    minutes: float

    @property
    def means(self) -> Array:
        """Means over the last `WINDOW` iterations, by iteration from the first that has as many."""
        size = min(WINDOW, len(self.values))
        return np.convolve(self.values, np.ones(size) / size, "valid")

    def scorings_to(self, value: float, better: str) -> float:
        """Scorings after which the mean over `WINDOW` iterations reached a value; infinite if it never did."""
        reached = self.means >= value if better == "higher" else self.means <= value
        return float(self.scorings[len(self.values) - len(self.means) :][reached.argmax()]) if reached.any() else inf


def learn(name: str, folder: Path, docs: Path, seeds: Sequence[int], jobs: int, quick: bool = False) -> Iterator[str]:
    """Run the arms of a comparison, then write its plot and table; yields the lines of the table.

    Args:
        name: of `COMPARISONS`.
        folder: of the runs.
        docs: where `learning_<name>.svg` and `.md` go.
        seeds: of the trainings.
        jobs: steps at once, which share the cores.
        quick: few samples and iterations: does it run at all?

    Raises:
        UserError: as the queue.
    """
    comparison = COMPARISONS[name].shrunk() if quick else COMPARISONS[name]
    folder = folder / name
    steps = _steps(comparison, folder, seeds, jobs)
    Queue(steps, folder, jobs).run()
    curves = [_read(arm, seed, comparison, folder) for arm in comparison.arms for seed in seeds]
    chosen = _chosen(folder / "best_of.jsonl", comparison) if comparison.best_of else ()
    draw(curves, chosen, comparison, docs / f"learning_{name}.svg")
    lines = _table(curves, chosen, comparison)
    parts = [
        f"# What learns how fast: {name}\n",
        f"{_origin(name, seeds, quick, steps, folder)}\n",
        f"{comparison.about}\n",
        f"![Curves](learning_{name}.svg)\n",
        *lines,
    ]
    write_whole(docs / f"learning_{name}.md", "\n".join(parts) + "\n")
    yield from lines


def _origin(name: str, seeds: Sequence[int], quick: bool, steps: Sequence[StudyStep], folder: Path) -> str:
    """The command that repeats it all, and the commits that its steps ran at."""
    found = [record for step in steps if (record := records.read(folder, step))]
    commits = dict.fromkeys(commit for record in found for commit in record.commits)
    command = f"python -m benchmarks learning --of {name} --seeds {','.join(map(str, seeds))}{' --quick' * quick}"
    return (
        f"Written by `{command}`: change the comparison, not this file. Commit {', '.join(commits) or 'not recorded'}."
    )


def _steps(comparison: Comparison, folder: Path, seeds: Sequence[int], jobs: int) -> list[StudyStep]:
    """A training of each arm and seed, and the draws of best-of-N."""
    extra = (f"threads={threads(jobs)}",) if jobs > 1 else ()
    steps = []
    for arm in comparison.arms:
        for seed in seeds:
            run = TrainedRun(folder / f"{arm.folder}-{seed}", comparison.iterations, False)
            where = (f"save_path={run.folder}", f"seed={seed}")
            words = ("-m", "atomrl", "train", *arm.chosen, *comparison.overrides(arm), "evaluation.samples=0", *where)
            steps.append(StudyStep(run.folder.name, "train", words, run, extra=extra))
    if comparison.best_of:
        drawn, first = Lines(folder / "best_of.jsonl", comparison.iterations), comparison.arms[0]
        counts = (",".join(map(str, numbers)) for numbers in (comparison.best_of, comparison.steered))
        what = (str(drawn.path), str(comparison.iterations), comparison.measure, *counts, first.config)
        group = f"dataloader.each_prompt_sample={max(comparison.best_of)}"
        words = ("-m", "benchmarks.best_of_draws", *what, *comparison.overrides(first), group)
        steps.append(StudyStep("best-of", "draw", words, drawn, extra=extra))
    return steps


def _read(arm: Arm, seed: int, comparison: Comparison, folder: Path) -> Curve:
    """The log of a training."""
    path = folder / f"{arm.folder}-{seed}" / "metrics.jsonl"
    rows = read_log(path)[: comparison.iterations]
    values = [nan if row.get(comparison.measure) is None else row[comparison.measure] for row in rows]
    seconds = sum(row["seconds_rollout"] + row["seconds_update"] for row in rows)
    scorings = comparison.samples * np.arange(1.0, len(rows) + 1)
    calls = _calls(path.with_name("calls.json"), arm.config, comparison.overrides(arm))
    gradient = max(row["grad_norm"] for row in rows)
    return Curve(arm, seed, comparison.scale * np.array(values), scorings, calls, gradient, seconds / 60)


def _calls(path: Path, config: str, overrides: Sequence[str]) -> float:
    """Calls of the network per scored sample, counted once and kept beside the run."""
    if not path.is_file():
        from benchmarks.network_calls import calls_per_sample  # noqa: PLC0415 - torch, which the queue does not need

        write_json(path, {"calls": calls_per_sample(config, overrides)})
    return float(json.loads(path.read_text())["calls"])


def _chosen(path: Path, comparison: Comparison) -> tuple[Chosen, ...]:
    """What was chosen from the base."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = []
    for key in (*map(str, comparison.best_of), *(f"{STEERED}{n}" for n in comparison.steered)):
        value = comparison.scale * float(np.nanmean([row[key] for row in rows]))
        name = f"{key} particles" if key.startswith(STEERED) else f"best of {key}"
        found.append(Chosen(name, value, *cost(key, comparison.time_step)))
    return tuple(found)


def _table(curves: Sequence[Curve], chosen: Sequence[Chosen], comparison: Comparison) -> list[str]:
    """Rows for the trainings, then for what is chosen from the base."""
    higher = comparison.better == "higher"
    goals = [one for one in chosen if one.name in REACH]
    head = [
        f"{comparison.title}{comparison.unit}, last {WINDOW}",
        f"best {WINDOW}",
        *(f"scorings to {goal.name} ({goal.value:.3g}{comparison.unit})" for goal in goals),
        "scorings",
        "network calls",
        "largest gradient",
        "pays from",
        "time",
    ]
    lines = [_row("", head), _row("---", ["---"] * len(head))]
    for curve in curves:
        means, scored = curve.means, curve.scorings[-1]
        cells = [f"{means[-1]:.3g}", f"{means.max() if higher else means.min():.3g}"]
        cells += [_count(curve.scorings_to(goal.value, comparison.better)) for goal in goals]
        cells += [f"{scored:,.0f}", f"{scored * curve.calls:,.0f}", f"{curve.gradient:.2g}"]
        cells += [_pays_from(curve, chosen, comparison), duration(60 * curve.minutes)]
        lines.append(_row(f"{curve.arm.name}, seed {curve.seed}", cells))
    for one in chosen:
        empty = [""] * (1 + len(goals))
        lines.append(
            _row(
                one.name, [f"{one.value:.3g}", *empty, f"{one.scorings} a sample", f"{one.calls} a sample", "", "", ""]
            )
        )
    return lines


def _pays_from(curve: Curve, chosen: Sequence[Chosen], comparison: Comparison) -> str:
    """From how many wanted samples on best-of-N needs more scorings than the training for the same measure.

    Never where the training is not better than the base, of which the first of `chosen` keeps every sample.
    """
    sign = 1 if comparison.better == "higher" else -1
    if chosen and sign * curve.means[-1] <= sign * chosen[0].value:
        return "never"
    reached, tried = sign * curve.means[-1], [one for one in chosen if one.name.startswith("best of")]
    enough = [one.scorings for one in tried if sign * one.value >= reached]
    if enough:
        return f"{curve.scorings[-1] / min(enough):,.0f} samples"
    return f"fewer than {curve.scorings[-1] / max(one.scorings for one in tried):,.0f} samples" if tried else ""


def _count(scorings: float) -> str:
    return f"{scorings:,.0f}" if scorings < inf else "not reached"


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"
