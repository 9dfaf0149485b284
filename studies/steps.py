"""The steps of a study: documented commands, and how to see from its files whether one is done."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atomrl.util.cpu_count import cores
from atomrl.util.errors import UserError
from studies.studies import Evaluation, Settings, Study, words_of


class Output(Protocol):
    """What a step leaves behind."""

    def whole(self) -> bool:
        """Whether it is all there, so that the step need not run."""

    def share(self) -> float | None:
        """Part of the step that is done, 0 to 1; None if its files do not tell."""

    def continuation(self) -> tuple[str, ...]:
        """Make ready to run the step; words that make its command continue what is there."""


@dataclass(frozen=True)
class EvaluationTable:
    """evaluation.json, which is written whole, and the tables beside it.

    Attributes:
        path: of the file.
        beside: names of the others, which are written after it.
    """

    path: Path
    beside: tuple[str, ...] = ()

    def whole(self) -> bool:
        """Whether all files are there."""
        return all(path.is_file() for path in (self.path, *map(self.path.with_name, self.beside)))

    def share(self) -> None:
        """An evaluation's files do not tell."""

    def continuation(self) -> tuple[str, ...]:
        """The same words: an evaluation finds by itself what it has sampled."""
        return ()


@dataclass(frozen=True)
class TrainedRun:
    """A run directory.

    Attributes:
        folder: the directory.
        iterations: of the whole training.
        evaluated: the training ends with an evaluation, and
        beside: these tables stand beside its main one.
    """

    folder: Path
    iterations: int
    evaluated: bool
    beside: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that a run continues from."""
        return self.folder / "checkpoint_latest.pth"

    @property
    def config(self) -> Path:
        """The configuration that it was trained with."""
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One line per iteration."""
        return self.folder / "metrics.jsonl"

    @property
    def table(self) -> Path:
        """Of the evaluation that the training ends with."""
        return self.folder / "evaluation" / "evaluation.json"

    def whole(self) -> bool:
        """Whether the last iteration is logged, after which nothing is saved, and the evaluation is there."""
        trained = self.checkpoint.is_file() and self._done() >= self.iterations
        return trained and (not self.evaluated or EvaluationTable(self.table, self.beside).whole())

    def share(self) -> float:
        """Iterations that are logged."""
        return min(1.0, self._done() / self.iterations)

    def continuation(self) -> tuple[str, ...]:
        """Continue from the checkpoint; a run that was killed before its first one starts again.

        Raises:
            UserError: the whole training is logged, but its checkpoint is gone: to start again would remove the run.
        """
        if self.checkpoint.is_file():
            return ("resume=true",)
        if self._done() >= self.iterations:
            raise UserError(
                f"{self.folder} has the log of a whole training, but no {self.checkpoint.name}: put it back, or remove "
                "the folder to train again"
            )
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        return ()

    def _done(self) -> int:
        """Iterations up to the last line; a line that a kill cut short does not count."""
        if not self.metrics.is_file():
            return 0
        lines = self.metrics.read_text().split("\n")[:-1]
        return int(json.loads(lines[-1])["iteration"]) + 1 if lines else 0


@dataclass(frozen=True)
class StudyStep:
    """One command of the queue.

    Attributes:
        name: unique in the queue; of its log and its record.
        kind: steps of one kind take times in proportion to their `work`.
        words: command line after the interpreter, e.g. `-m atomrl train`; what the step is.
        output: what it leaves behind.
        after: steps whose output it needs.
        extra: words that only say how to run here, e.g. threads.
        work: relative to other steps of its kind.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    output: Output
    after: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    work: float = 1.0

    @property
    def command(self) -> str:
        """As a reader would type it."""
        return shlex.join(word for word in self.words if word != "-m")


@dataclass(frozen=True)
class Plan:
    """All steps of a study.

    Attributes:
        steps: in the order of the queue.
        runs: run directory by training seed.
        tables: evaluation.json by training seed.
        controls: (N, evaluation.json) of each best-of-N.
    """

    steps: tuple[StudyStep, ...]
    runs: dict[int, TrainedRun]
    tables: dict[int, Path]
    controls: tuple[tuple[int, Path], ...]


def plan(study: Study, settings: Settings, folder: Path, jobs: int = 1) -> Plan:
    """Trainings, each followed by its evaluation, then the controls.

    The controls do not depend on the training seed and run once; they are given the first seed's run, because
    `atomrl evaluate` takes the reward that chooses the best from there.
    """
    beside = tuple(table.file for table in settings.further)
    runs = {
        seed: TrainedRun(folder / f"seed-{seed}", settings.iterations, settings.samples > 0, beside)
        for seed in study.seeds
    }
    named = any(override.lstrip("+").startswith("threads=") for override in study.overrides)
    extra = (f"threads={threads(jobs)}",) if jobs > 1 and not named else ()
    steps: list[StudyStep] = []
    tables = {}
    for seed, run in runs.items():
        words = ("-m", "atomrl", "train", *words_of(study.config), f"save_path={run.folder}", f"seed={seed}")
        steps.append(StudyStep(f"train-{seed}", "train", (*words, *study.overrides), run, extra=extra))
        tables[seed] = run.table
        if study.evaluation is not None:
            tables[seed] = folder / f"evaluation-{seed}" / "evaluation.json"
            steps.append(evaluate_step(f"evaluate-{seed}", study.evaluation, settings, (seed, run), tables[seed], None))
    drawn = []
    if study.evaluation is not None:
        first = study.seeds[0]
        wanted = sorted({n or settings.draws(study.evaluation.samples) for n in study.evaluation.best_of} - {1})
        for n in wanted:  # best of 1 is the base
            table = folder / f"best-of-{n}" / "evaluation.json"
            drawn.append((n, table))
            steps.append(evaluate_step(f"best-of-{n}", study.evaluation, settings, (first, runs[first]), table, n))
    return Plan(tuple(steps), runs, tables, tuple(drawn))


def threads(jobs: int) -> int:
    """Of each of so many processes: two busy sets of threads on the same cores wait for each other."""
    return max(1, cores() // jobs)


def evaluate_step(
    name: str, evaluation: Evaluation, settings: Settings, trained: tuple[int, TrainedRun], table: Path, n: int | None
) -> StudyStep:
    """`atomrl evaluate` of a trained run (seed, run), with best-of-n of the base if n is given.

    What several such steps of one folder share, e.g. the base, is sampled once.
    """
    seed, run = trained
    options = {
        "--base": settings.backbone,
        "--trained": run.folder,
        "--num-samples": evaluation.samples,
        "--time-step": evaluation.time_step,
        "--seed": evaluation.seed,
        "--device": settings.device,
        "--output": table.parent,
    }
    if n is not None:
        options["--best-of"] = n
    words = ("-m", "atomrl", "evaluate", *(str(word) for pair in options.items() for word in pair))
    output = EvaluationTable(table, tuple(further.file for further in settings.further))
    extra = ("--keep", str(table.parent.parent / "kept"))  # the base is in all evaluations: sampled and relaxed once
    return StudyStep(name, "evaluate", words, output, (f"train-{seed}",), extra, work=2 + (n or 0))
