"""What learns how fast: objectives beside best-of-N, by scorings and by calls of the network.

Each arm is a training of the same prompts and reward by another objective, or by the same with one option changed. Best
of N needs no training: N samples of one size are drawn from the base and scored for each that is kept. The arms run as
steps of a queue that goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atomrl.util.files import write_whole
from benchmarks.learning_arms import COMPARISONS, Comparison
from benchmarks.learning_curves import read_chosen, read_curve
from benchmarks.learning_plot import draw
from benchmarks.learning_table import table
from studies import records
from studies.queue import Queue
from studies.steps import StudyStep, TrainedRun, threads


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
    curves = [read_curve(arm, seed, comparison, folder) for arm in comparison.arms for seed in seeds]
    chosen = read_chosen(folder / "best_of.jsonl", comparison) if comparison.best_of else ()
    draw(curves, chosen, comparison, docs / f"learning_{name}.svg")
    lines = table(curves, chosen, comparison)
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
