"""Figures as SVG whose bytes follow from what they show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from atomrl.util.files import write_whole
from atomrl.util.optional_imports import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def svg(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches to draw in; written at the end, without date or creator.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    with extra("crystals"):
        import matplotlib as mpl  # noqa: PLC0415 - drawn once, at the end of a run
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

    # Text stays text: smaller, and a reader can search it. The salt fixes the ids that matplotlib makes up.
    with mpl.rc_context({"svg.hashsalt": "atomrl", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    write_whole(path, buffer.getvalue())
