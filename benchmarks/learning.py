"""What learns how fast: objectives beside best-of-N, by scorings and by calls of the network.

Each arm is a training of the same prompts and reward by another objective, or by the same with one option changed. Best
of N needs no training: N samples of one size are drawn from the base and scored for each that is kept. The arms run as
steps of a queue that goes on where it was stopped.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atomrl.util.files import write_whole
from benchmarks.learning_arms import COMPARISONS, Arm, Comparison, named_arms
from benchmarks.learning_curves import read_chosen, read_curve
from benchmarks.learning_plot import draw
from benchmarks.learning_table import table
from studies import records
from studies.queue import Queue, StepFailedError
from studies.steps import StudyStep, TrainedRun, threads
from studies.studies import words_of


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
class Pace:
    """How the steps share the machine.

    Attributes:
        jobs: steps at once.
        threads: of each; None: as many as its share of the cores.
    """

    jobs: int
    threads: int | None = None

    def words(self) -> tuple[str, ...]:
        """Of each step; none for the only one at a time, which takes all cores by itself."""
        if self.threads is None and self.jobs < 2:
            return ()
        return (f"threads={self.threads or threads(self.jobs)}",)


Trained = Mapping[Arm, Sequence[int]]
"""Seeds of each arm of a report."""


def learn(
    name: str,
    folder: Path,
    docs: Path,
    seeds: Sequence[int],
    pace: Pace,
    quick: bool = False,
    names: Sequence[str] = (),
) -> Iterator[str]:
    """Run the arms of a comparison, then write its plot and table; yields the lines of the table.

    A report also has the other seeds of its arms that earlier commands trained in this folder. A training that fails,
    such as one that diverges, keeps no other from running; the report has it as far as it came.

    Args:
        name: of `COMPARISONS`.
        folder: of the runs.
        docs: where `learning_<name>.svg` and `.md` go.
        seeds: of the trainings.
        pace: of the steps.
        quick: few samples and iterations, and if no arm is named, two arms: does it run at all?
        names: of the arms; none: all. The draws of best-of-N are those of the comparison's first arm in any case.

    Raises:
        UserError: as the queue; or no such arm.
        StepFailedError: of the queue, after the lines of the table.
    """
    arms = named_arms(name, names) if names else COMPARISONS[name].arms[: 2 if quick else None]
    comparison = COMPARISONS[name].shrunk() if quick else COMPARISONS[name]
    folder = folder / name
    trained = {arm: _with_earlier(seeds, arm, comparison, folder) for arm in arms}
    steps = _steps(comparison, trained, folder, pace.words())
    failed = _run(Queue(steps, folder, pace.jobs, keep_going=True))
    drawn = Lines(folder / "best_of.jsonl", comparison.iterations)
    if failed and comparison.best_of and not drawn.whole():
        raise failed
    chosen = read_chosen(drawn.path, comparison) if comparison.best_of else ()
    found = [read_curve(arm, seed, comparison, folder) for arm, its in trained.items() for seed in its]
    curves = [curve for curve in found if curve is not None]
    draw(curves, chosen, comparison, docs / f"learning_{name}.svg")
    lines = table(curves, chosen, comparison)
    parts = [
        f"# What learns how fast: {name}\n",
        f"{_origin(_command(name, seeds, names, quick), steps, folder)}\n",
        f"{comparison.about} {comparison.legend}\n",
        f"{_seeds_said(trained, seeds)}\n",
        f"![Curves](learning_{name}.svg)\n",
        *lines,
    ]
    write_whole(docs / f"learning_{name}.md", "\n".join(parts) + "\n")
    yield from lines
    if failed:
        raise failed


def _run(queue: Queue) -> StepFailedError | None:
    """Run what is not done; the error if a step failed."""
    try:
        queue.run()
    except StepFailedError as error:
        return error
    return None


def _with_earlier(seeds: Sequence[int], arm: Arm, comparison: Comparison, folder: Path) -> tuple[int, ...]:
    """Seeds that are asked for, then others of which the folder has the whole run."""
    found = [path for path in folder.glob(f"{arm.folder}-*") if TrainedRun(path, comparison.iterations, False).whole()]
    numbers = (re.fullmatch(r"\d+", path.name.removeprefix(f"{arm.folder}-")) for path in found)
    return tuple(dict.fromkeys((*seeds, *sorted(int(number[0]) for number in numbers if number))))


def _seeds_said(trained: Trained, asked: Sequence[int]) -> str:
    """Which arms have several seeds, and which of these this command did not ask for."""
    several = [f"{arm.name} ({', '.join(map(str, seeds))})" for arm, seeds in trained.items() if len(seeds) > 1]
    if not several:
        return "Each arm has one seed."
    others = "; the other arms have one" if len(several) < len(trained) else ""
    earlier = {arm.name: [str(seed) for seed in seeds if seed not in asked] for arm, seeds in trained.items()}
    more = "; ".join(f"{name}, seed {', '.join(seeds)}" for name, seeds in earlier.items() if seeds)
    return (
        f"Several seeds: {', '.join(several)}{others}. A row of a mean is that of the mean curve; its largest gradient "
        f"is that of all seeds.{f' Trained by earlier commands: {more}.' if more else ''}"
    )


def _command(name: str, seeds: Sequence[int], names: Sequence[str], quick: bool) -> str:
    """As a reader would type it."""
    arms = ("--arms", ",".join(names)) if names else ()
    words = ("--of", name, "--seeds", ",".join(map(str, seeds)), *arms, *(("--quick",) if quick else ()))
    return shlex.join(("python", "-m", "benchmarks", "learning", *words))


def _origin(command: str, steps: Sequence[StudyStep], folder: Path) -> str:
    """The command that repeats it all, and the commits that its steps ran at."""
    found = [record for step in steps if (record := records.read(folder, step))]
    commits = dict.fromkeys(commit for record in found for commit in record.commits)
    return (
        f"Written by `{command}`: change the comparison, not this file. Commit {', '.join(commits) or 'not recorded'}."
    )


def _steps(comparison: Comparison, trained: Trained, folder: Path, extra: tuple[str, ...]) -> list[StudyStep]:
    """A training of each arm and seed, and the draws of best-of-N; `extra` says how they run here."""
    steps = []
    for arm, seeds in trained.items():
        for seed in seeds:
            run = TrainedRun(folder / f"{arm.folder}-{seed}", comparison.iterations, False)
            where = (f"save_path={run.folder}", f"seed={seed}")
            what = (*words_of(arm.config), *comparison.overrides(arm), "evaluation.samples=0")
            words = ("-m", "atomrl", "train", *what, *where)
            steps.append(StudyStep(run.folder.name, "train", words, run, extra=extra))
    if comparison.best_of:
        drawn, first = Lines(folder / "best_of.jsonl", comparison.iterations), comparison.arms[0]
        counts = (",".join(map(str, numbers)) for numbers in (comparison.best_of, comparison.steered))
        what = (str(drawn.path), str(comparison.iterations), comparison.measure, *counts, first.config)
        group = f"dataloader.each_prompt_sample={max(comparison.best_of)}"
        words = ("-m", "benchmarks.best_of_draws", *what, *comparison.overrides(first), group)
        steps.append(StudyStep("best-of", "draw", words, drawn, extra=extra))
    return steps
