"""The curves of `python -m benchmarks learning` as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from atomrl.util.figures import svg
from benchmarks.learning_arms import WINDOW, Comparison
from benchmarks.learning_curves import Chosen, Curve
from studies.curves import COLOURS

STYLES = ("-", "--", ":", "-.")
"""Of lines, one after the other when the colours are used up."""


def draw(curves: Sequence[Curve], chosen: Sequence[Chosen], comparison: Comparison, output: Path) -> None:
    """Running means against scorings and against calls of the network; best-of-N as levels. Bytes follow from values.

    Args:
        curves: trainings; seeds of one arm have one colour.
        chosen: from the base.
        comparison: what they are.
        output: SVG file.
    """
    with svg(output, 10, 4) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _fill(left, curves, comparison, by_calls=False)
        _fill(right, curves, comparison, by_calls=True)
        for one in chosen:
            for axes in (left, right):
                axes.axhline(one.value, color="grey", linewidth=0.8, linestyle=":", gid=one.name.replace(" ", "-"))
            left.annotate(one.name, (0, one.value), fontsize=7, color="grey", va="bottom")
        left.set_ylabel(f"{comparison.title}{comparison.unit}, mean of {WINDOW} iterations")
        left.set_xlabel("samples scored")
        right.set_xlabel("calls of the network")
        handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)


def _fill(axes: Axes, curves: Sequence[Curve], comparison: Comparison, by_calls: bool) -> None:
    """One panel; every line has an id, so that a program finds it in the SVG."""
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    for curve in curves:
        means = curve.means
        scorings = curve.scorings[-len(means) :]
        axes.plot(
            scorings * curve.calls if by_calls else scorings,
            means,
            color=COLOURS[arms.index(curve.arm) % len(COLOURS)],
            linestyle=STYLES[arms.index(curve.arm) // len(COLOURS) % len(STYLES)],
            linewidth=1.4,
            label=curve.arm.name,
            gid=f"{curve.arm.folder}-{curve.seed}-{'calls' if by_calls else 'scorings'}",
        )
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
