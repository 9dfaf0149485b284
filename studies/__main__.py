"""Train several seeds, compare, draw curves: `make results`, or `python -m results --help`."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atomrl.util.command_parser import CommandParser
from atomrl.util.errors import UserError
from studies import recorded
from studies.queue import Queue, ending_like_a_queue
from studies.records import ROOT
from studies.steps import plan
from studies.studies import STUDIES, Settings, Study, controls, read_settings, whole_numbers


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the queue, then write the report. Exit codes: 2 for a user's mistake, 130 for Ctrl-C, a failed step's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with ending_like_a_queue():
        _run(_parser().parse_intermixed_args(words), words)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m results", description=__doc__)
    names = " or ".join(STUDIES)
    parser.add_argument("words", nargs="*", metavar="study key=value", help=f"{names}; overrides for each training")
    parser.add_argument("--seeds", default="0,1,2", help="of the trainings")
    parser.add_argument("--folder", type=Path, default=Path("runs/results"), help="for runs, evaluations and logs")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "results", help="for the report")
    parser.add_argument("--jobs", type=int, default=1, help="steps at once, which share the cores")
    parser.add_argument("--only-report", action="store_true", help="run nothing, report what was run")
    parser.add_argument("--samples", type=int, help="samples per column of `atomrl evaluate`")
    parser.add_argument("--time-step", type=int, help="T of `atomrl evaluate`")
    parser.add_argument("--best-of", help="controls: numbers and the word budget, e.g. 4,budget; none for no control")
    return parser


def _run(options: argparse.Namespace, words: list[str]) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("the curves need matplotlib: make venv, or pip install -e '.[dev]'")
    study = _study(options)
    settings = read_settings(study)
    folder = options.folder / study.name
    steps = plan(study, settings, folder, options.jobs)
    if not options.only_report:
        _check_packages(settings)
        recorded.require_alike(study, steps)
        Queue(steps.steps, folder, options.jobs).run()
        recorded.require_alike(study, steps)
    from studies import report  # noqa: PLC0415 - matplotlib and numpy, which hours of waiting do not need

    command = shlex.join(["python", "-m", "results", *(word for word in words if word != "--only-report")])
    path = report.write(study, steps, folder, options.docs, command)
    print(path.read_text().partition(report.EACH_SEED)[0])
    print(f"report -> {path}, {path.with_suffix('.svg')}")


def _check_packages(settings: Settings) -> None:
    """Raise UserError for now what would fail after hours of training."""
    for table in settings.further:
        if table.package is not None and importlib.util.find_spec(table.package) is None:
            raise UserError(
                f"{table.key} needs the package {table.package}, which is not installed: pip install"
                f" 'atomrl[{table.extra}]', or leave it out with {table.key}=null"
            )


def _study(options: argparse.Namespace) -> Study:
    """The study that the command line asks for."""
    names = [word for word in options.words if "=" not in word] or ["molecules"]
    if len(names) > 1 or names[0] not in STUDIES:
        raise UserError(f"{' '.join(names)}: give one study of {', '.join(STUDIES)}, and key=value")
    named = STUDIES[names[0]]
    study = replace(
        named,
        seeds=whole_numbers(options.seeds, "--seeds"),
        overrides=(*named.overrides, *(word for word in options.words if "=" in word)),  # the last of a key counts
    )
    given = {name: value for name in ("samples", "time_step", "best_of") if (value := vars(options)[name]) is not None}
    if not given:
        return study
    if study.evaluation is None:
        raise UserError(
            f"the study {study.name} is evaluated by `atomrl train` itself: give evaluation.samples=... instead"
        )
    for name in ("samples", "time_step"):
        if given.get(name, 1) < 1:
            raise UserError(f"--{name.replace('_', '-')} {given[name]}: must be at least 1")
    chosen = study.evaluation.best_of
    if "best_of" in given:
        chosen = () if given["best_of"] == "none" else controls(given["best_of"].split(","))
    samples, time_step = (given.get(name, vars(study.evaluation)[name]) for name in ("samples", "time_step"))
    return replace(study, evaluation=replace(study.evaluation, samples=samples, time_step=time_step, best_of=chosen))


if __name__ == "__main__":
    main()
