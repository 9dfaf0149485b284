"""`atomrl report`, and the same from Python: runs and evaluations as one HTML file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atomrl.report.content import Content
from atomrl.report.page import packed, page
from atomrl.report.sources import find_sources
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

LARGEST = 5_000_000
"""Bytes of a report."""
PROBE = 60
"""Samples of a side by which the size of all is estimated."""
SMALLER = 0.95
"""Share of the samples that should fit which is tried next, if a page is too large."""
REPORT = "report.html"
"""What a report is called if nobody names it."""
ENDINGS = frozenset({".html", ".htm"})


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: of the file.
        left_out: how many samples of a large evaluation are in it; empty if all are.
    """

    path: Path
    left_out: str


def report_command(options: argparse.Namespace) -> None:
    """Write a report and say where it is."""
    report = write_report(options.runs, options.output)
    if report.left_out:
        print(f"it holds only a part of the samples, as the page says: {report.left_out}")
    print(f"report -> {report.path}")


def write_report(words: Sequence[str | Path], output: Path | None = None) -> Report:
    """Write a report of runs and evaluations, side by side.

    Args:
        words: as `find_sources` takes them.
        output: an .html file, which is written over; None: `report.html` in the run or the evaluation, or here if there
            are several.

    Raises:
        UserError: as `find_sources`; a file of a run or of an evaluation cannot be read; the report cannot be written.
    """
    sources = find_sources(words)
    path = output or (sources[0].folder / REPORT if len(sources) == 1 else Path(REPORT))
    if path.suffix.lower() not in ENDINGS or path.is_dir():
        raise UserError(f"--output {path}: a report is one file whose name ends in .html: give such a name")
    content = Content.read(sources)
    most, text = _fitting(content)
    write_whole(path, text)
    return Report(path, content.left_out(most))


def _fitting(content: Content) -> tuple[int, str]:
    """With how many samples of a side the page has at most `LARGEST` bytes, and that page.

    Raises:
        UserError: it is too large with hardly any.
    """
    most = min(content.largest, _estimate(content)) if content.largest > PROBE else content.largest
    while True:
        text = page(content.title, content.data(most))
        size = len(text.encode())
        if size <= LARGEST:
            return most, text
        if most <= 1:
            raise UserError(
                f"a report of {len(content.sources)} runs has {size:,} bytes without samples: give fewer runs"
            )
        most = int(most * SMALLER * LARGEST / size)


def _estimate(content: Content) -> int:
    """About how many samples of a side fit, from how much a few take."""
    probed = list(content.shown_sides(PROBE))
    count = max(len(side["samples"]["ids"]) for side in probed if side["samples"] is not None)
    left = LARGEST - len(page(content.title, content.data(0)).encode())
    return max(1, int(left * count / len(packed({"sides": probed}))))
