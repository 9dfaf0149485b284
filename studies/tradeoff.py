"""What a gain costs: `python -m studies.tradeoff EVALUATION... --output FIGURE.svg` draws one metric against another.

Every column of every `evaluation.json` is a point with its 95 % intervals; the base and its best of N are joined, since
they are what the same samplings and scorings give without a training. With `--trained RUN` the evaluations of a run
beside the best of each N are made first; a command that was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from atomrl.config import read_config
from atomrl.evaluation.table_file import ColumnEntry, MetricEntry, TableFile, read_table
from atomrl.measures.bootstrap import Estimate
from atomrl.util.command_parser import CommandParser
from atomrl.util.errors import UserError
from atomrl.util.figures import svg
from studies.queue import Queue, ending_like_a_queue
from studies.steps import TrainedRun, evaluate_step
from studies.studies import Evaluation, controls, settings_of
from studies.subjects import CRYSTALS, MOLECULES

BASE, CHOSEN = "base", "base best of "

LETTER, LINE = 3.9, 8.0
"""Of a label, points: about the width of a letter, and the height of a line."""


@dataclass(frozen=True)
class Point:
    """A column of an evaluation.

    Attributes:
        label: of the column, with the run's folder where several evaluations have one.
        x, y: its two metrics, in the units of the table.
        joined: whether it is the base or a best of N of it.
        time_step: T of its walks.
    """

    label: str
    x: Estimate
    y: Estimate
    joined: bool
    time_step: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure. Exit code 2 for a user's mistake."""
    parser = CommandParser(prog="python -m studies.tradeoff", description=__doc__)
    parser.add_argument("evaluations", nargs="*", type=Path, metavar="EVALUATION", help="a folder with evaluation.json")
    parser.add_argument("--x", default="molecule_stability", help="metric to the right; default molecule_stability")
    parser.add_argument("--y", default="novelty", help="metric upwards; default novelty")
    parser.add_argument("--output", type=Path, required=True, help="SVG file")
    own = parser.add_argument_group("evaluations that are made first")
    own.add_argument("--trained", type=Path, metavar="RUN", help="run directory, whose reward chooses the best")
    own.add_argument("--best-of", default="2,4,8,16,21", metavar="N,...", help="default %(default)s")
    own.add_argument("--samples", type=int, default=500, help="per column; default %(default)s")
    own.add_argument("--time-step", type=int, help="T; default: that of the run's own evaluation")
    own.add_argument("--folder", type=Path, default=Path("runs/tradeoff"), help="for evaluations; default %(default)s")
    own.add_argument("--jobs", type=int, default=1, help="evaluations at once, which share the cores")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if not options.evaluations and options.trained is None:
        parser.error("give evaluations, or a run with --trained")
    with ending_like_a_queue():
        made = [] if options.trained is None else _made(options)
        tables = {folder: read_table(folder / "evaluation.json") for folder in (*options.evaluations, *made)}
        points, undrawn = read_points(tables, options.x, options.y)
        first = next(iter(tables.values()))
        draw(points, _title(first, options.x), _title(first, options.y), options.output)
        print(f"{len(points)} columns -> {options.output}", *undrawn, sep="\n")


def _made(options: argparse.Namespace) -> list[Path]:
    """Folders of the evaluations of a run beside the best of each N of its base.

    Raises:
        UserError: a number is not one that it can be, the run has no configuration, or evaluations are of an earlier
            state of it.
        StepFailedError: an evaluation failed.
    """
    for name in ("samples", "time_step"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise UserError(f"--{name.replace('_', '-')} {number}: must be at least 1")
    counts = [n for n in controls(options.best_of.split(",")) if n is not None]
    if "budget" in options.best_of.split(","):
        raise UserError(f"--best-of {options.best_of}: give numbers; only python -m results knows the word budget")
    config = read_config(options.trained / "config.yaml")
    subject = {"molecules": MOLECULES, "crystals": CRYSTALS}[config.domain]
    settings = settings_of(OmegaConf.create(config.model_dump()), subject)
    evaluation = Evaluation(options.samples, options.time_step or settings.time_step)
    run = TrainedRun(options.trained, settings.iterations, settings.samples > 0)
    folders = {n: options.folder / f"best-of-{n}" for n in counts}
    steps = [
        evaluate_step(folder.name, evaluation, settings, (config.seed, run), folder / "evaluation.json", n)
        for n, folder in folders.items()
    ]
    trained = run.checkpoint.stat().st_mtime if run.checkpoint.is_file() else 0.0
    for folder in folders.values():
        table = folder / "evaluation.json"
        if table.is_file() and table.stat().st_mtime < trained:
            raise UserError(
                f"{folder} is of {options.trained} as it was before it was trained further: give another --folder"
            )
    Queue(steps, options.folder, options.jobs).run()
    return list(folders.values())


def read_points(tables: Mapping[Path, TableFile], x: str, y: str) -> tuple[list[Point], list[str]]:
    """The sampled columns of evaluations that have both metrics; one that several have, e.g. the base, comes once.

    Of plain samples of one model with the same T, asked for the same, those of the evaluation with most samples come.

    Returns:
        Them; and a line about each sampled column that has no place in a figure: without a value, or with an infinite
        one, such as the median force where most samples failed.

    Raises:
        UserError: an evaluation lacks a metric, or is of another profile than the first; or no column has values.
    """
    first = next(iter(tables.values()))
    most: dict[tuple[object, ...], int] = {}
    for name, column in (item for table in tables.values() for item in table.columns.items()):
        if (plain := _plain(name, column)) is not None:
            most[plain] = max(column.samples, most.get(plain, 0))
    points: dict[tuple[str, float, float], Point] = {}
    undrawn: dict[str, None] = {}
    for folder, table in tables.items():
        if table.profile != first.profile:
            raise UserError(f"{folder} is of profile {table.profile}, the first of {first.profile}: give one kind")
        if missing := [name for name in (x, y) if name not in table.metrics]:
            raise UserError(f"{folder} has no {', '.join(missing)}: choose from {', '.join(table.metrics)}")
        for name, column in table.columns.items():
            if column.time_step is None:
                continue  # a known set: nothing sampled it
            if (plain := _plain(name, column)) is not None and column.samples < most[plain]:
                continue
            found = {key: _scaled(table.metrics[key], name) for key in (x, y)}
            joined = name == BASE or name.startswith(CHOSEN)
            run = folder.parent.name if folder.name == "evaluation" else folder.name
            label = name if joined or len(tables) == 1 else f"{name}, {run}"
            if lacking := [key for key, one in found.items() if not math.isfinite(one.value)]:
                undrawn |= {f"not drawn: {label}: {_why(found[key], _title(table, key))}": None for key in lacking}
                continue
            point = Point(label, found[x], found[y], joined, column.time_step)
            points.setdefault((name, found[x].value, found[y].value), point)
    if not points:
        raise UserError(f"no sampled column has a finite value of both {x} and {y}: give more evaluations, or others")
    return list(points.values()), list(undrawn)


def _plain(name: str, column: ColumnEntry) -> tuple[object, ...] | None:
    """What plain samples are of: column, weights, T and what was asked for; None if something chose among them."""
    if column.model is None or column.drawn != column.samples:
        return None
    return name, column.model.weights, column.time_step, *sorted(column.asked.items())


def _why(estimate: Estimate, title: str) -> str:
    """What keeps a column out of a figure."""
    return f"it has no {title}" if math.isnan(estimate.value) else f"its {title} is infinite"


def draw(points: Sequence[Point], x: str, y: str, output: Path) -> None:
    """Points with intervals, the joined ones of each T by a line; every point has an id.

    Args:
        points: at least one.
        x: title of the axis to the right.
        y: title of the axis upwards.
        output: SVG file.

    Raises:
        UserError: the file cannot be written.
    """
    steps = sorted({point.time_step for point in points})
    with svg(output, 7, 5) as figure:
        axes = figure.subplots()
        for step in steps:
            line = sorted((p.x.value, p.y.value) for p in points if p.joined and p.time_step == step)
            axes.plot([place[0] for place in line], [place[1] for place in line], color="grey", linewidth=0.8)
        for point in points:
            right, up = (
                [[max(0.0, one.value - one.low)], [max(0.0, one.high - one.value)]] for one in (point.x, point.y)
            )
            colour = "grey" if point.joined else "C0"
            place = (point.x.value, point.y.value)
            axes.errorbar(*place, xerr=right, yerr=up, fmt="o", color=colour, elinewidth=0.6, markersize=4)
        axes.set(xlabel=x, ylabel=y)
        _write_labels(axes, [(point, _said(point, len(steps) > 1)) for point in points])


def _said(point: Point, of_several: bool) -> str:
    """What stands beside a point: its column, and T where not all points have the same."""
    return f"{point.label}, T = {point.time_step}" if of_several else point.label


def _write_labels(axes: Any, labels: Sequence[tuple[Point, str]]) -> None:
    """Labels towards the middle of the figure, from the top down; one that would cover another moves below it.

    Args:
        axes: with all points, so that their range is fixed.
        labels: of points.
    """
    axes.figure.draw_without_rendering()  # ranges and layout are known only then
    written: list[tuple[float, float, float]] = []
    for point, said in sorted(labels, key=lambda label: -label[0].y.value):
        place = (point.x.value, point.y.value)
        right = bool(axes.transAxes.inverted().transform(axes.transData.transform(place))[0] > 0.5)
        x, y = (float(value) for value in axes.transData.transform(place) * 72 / axes.figure.dpi)
        width = LETTER * len(said)
        start, height = x - width if right else x, y + 4
        for other, length, lower in written:
            if start < other + length and other < start + width:
                height = min(height, lower - LINE)
        written.append((start, width, height))
        where = (-4 if right else 4, height - y)
        style = {"fontsize": 7, "ha": "right" if right else "left", "gid": said.replace(" ", "-")}
        axes.annotate(said, place, where, textcoords="offset points", **style)


def _scaled(metric: MetricEntry, column: str) -> Estimate:
    """A column's estimate in the unit of the table, shares in per cent; missing if the column does not have it."""
    if column not in metric.columns:
        return Estimate.missing()
    estimate, scale = metric.columns[column].estimate(), 100 if metric.unit == "%" else 1
    return Estimate(scale * estimate.value, scale * estimate.low, scale * estimate.high, estimate.denominator)


def _title(table: TableFile, name: str) -> str:
    metric = table.metrics[name]
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


if __name__ == "__main__":
    main()
