"""Crystals side by side in one picture: a cell each, seen a little from the side, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.utils import rotate
from numpy.typing import NDArray

from atomrl.core.records import Structures
from atomrl.export.crystals import UNWRITABLE
from atomrl.export.exporter import Picture
from atomrl.structures.crystals import check_cells
from atomrl.structures.molecules import Geometry, split
from atomrl.util.optional_imports import extra

ACROSS = 4
"""Crystals in a row."""
PANEL = (2.6, 2.4)
"""Inches of one, wide and high."""
DOTS = 100
"""Pixels to the inch."""
LARGEST = 100.0
"""Å. In a larger cell, or with atoms further out, there is nothing to see."""
SEEN: NDArray[np.float64] = rotate("80x,-15y,0z")  # type: ignore[no-untyped-call]
"""How a cell is turned."""
ATOM = 0.5
"""Of its covalent radius."""

CORNERS = np.array(list(product((0, 1), repeat=3)))
EDGES = [(one, two) for one in range(8) for two in range(one) if np.abs(CORNERS[one] - CORNERS[two]).sum() == 1]
"""Of a cell: pairs of its corners."""


def draw(structures: Structures, captions: Sequence[str]) -> Picture:
    """One cell of each crystal, with its edges; colours are Jmol's.

    What cannot be drawn (not finite, no atoms, a number that is no element, larger than `LARGEST`) leaves its place
    empty.

    Args:
        structures: B crystals.
        captions: of each.

    Raises:
        UserError: matplotlib is not installed.
    """
    with extra("crystals"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, 0.3 s
        from matplotlib.collections import LineCollection, PatchCollection  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.patches import Circle  # noqa: PLC0415
    structures = structures.to(torch.device("cpu"))
    assert structures.cell is not None
    down = -(-len(structures) // ACROSS)
    figure = Figure((PANEL[0] * ACROSS, PANEL[1] * down), dpi=DOTS)
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, PANEL[0] * ACROSS), ylim=(PANEL[1] * down, 0))
    axes.set_axis_off()
    lines: list[NDArray[np.float64]] = []
    circles, colours = [], []
    reasons = check_cells(structures)
    parts = zip(split(structures), structures.cell.double().numpy(), reasons, captions, strict=True)
    for place, (geometry, cell, reason, caption) in enumerate(parts):
        left, top = PANEL[0] * (place % ACROSS), PANEL[1] * (place // ACROSS)
        axes.text(left + PANEL[0] / 2, top + PANEL[1] - 0.1, caption, fontsize=8, ha="center", va="bottom")
        if reason in UNWRITABLE or max(np.abs(cell).max(), np.abs(geometry.positions).max()) > LARGEST:
            continue
        corners, centres, radii = _seen(geometry, cell)
        corner = np.array([left, top])
        lines += [corners[list(edge)] + corner for edge in EDGES]
        circles += [Circle(middle, radius) for middle, radius in zip(centres + corner, radii, strict=True)]
        colours += [jmol_colors[number] for number in _from_behind(geometry)[0]]
    axes.add_collection(LineCollection(lines, colors="grey", linewidths=0.8))
    axes.add_collection(PatchCollection(circles, facecolors=colours, edgecolors="black", linewidths=0.6, zorder=3))
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def _from_behind(geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers and turned positions of atoms, the one furthest from the eye first."""
    turned = geometry.positions @ SEEN
    order = turned[:, 2].argsort()
    return geometry.numbers[order], turned[order]


def _seen(
    geometry: Geometry, cell: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Corners of a cell (8, 2), centres (N, 2) and radii (N,) of its atoms, in inches of a panel."""
    numbers, turned = _from_behind(geometry)
    corners, radii = (CORNERS @ cell @ SEEN)[:, :2], ATOM * covalent_radii[numbers]
    low = np.minimum(corners.min(0), (turned[:, :2] - radii[:, None]).min(0))
    high = np.maximum(corners.max(0), (turned[:, :2] + radii[:, None]).max(0))
    room = np.array([PANEL[0], PANEL[1] - 0.5]) - 0.2
    scale = float((room / np.maximum(high - low, 1e-6)).min())
    middle = np.array([PANEL[0], PANEL[1] - 0.5]) / 2

    def on_panel(points: NDArray[np.float64]) -> NDArray[np.float64]:
        placed: NDArray[np.float64] = (points - (low + high) / 2) * (scale, -scale) + middle
        return placed

    return on_panel(corners), on_panel(turned[:, :2]), radii * scale
